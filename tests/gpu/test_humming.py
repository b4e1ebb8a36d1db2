"""The humming back end on a real GPU: the same numbers as the reference back end, and no second rearrangement."""

import pytest
import torch
from runtime.models import IDS, load, quantized

import halfbyte.runtime as runtime
from halfbyte.errors import UsageError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="humming-kernels need CUDA")
SIZES = {"hidden_size": 256, "moe_intermediate_size": 128}


def logits(model: object) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(IDS.cuda(), use_cache=False).logits.float()  # type: ignore[operator]
    return result


@pytest.mark.parametrize("activations", ["a16", "a4-sim"])
def test_equals_the_reference_within_bfloat16(activations: str) -> None:
    folder = quantized("Qwen3-30B-A3B", **SIZES)
    model = load(folder, dtype=torch.bfloat16).cuda()
    runtime.use(model, backend="reference", activations=activations)
    wanted = logits(model)
    runtime.use(model, backend="humming")
    found = logits(model)
    assert (found - wanted).norm() < 0.03 * wanted.norm()


def test_a_second_use_keeps_the_rearranged_weights() -> None:
    model = load(quantized("Qwen3-30B-A3B", **SIZES), dtype=torch.bfloat16).cuda()
    runtime.use(model, backend="humming")
    before = logits(model)
    runtime.use(model)
    assert torch.equal(logits(model), before)
    with pytest.raises(UsageError, match="rearranged"):
        runtime.use(model, backend="reference")
