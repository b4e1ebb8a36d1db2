"""No tensor of size queries x keys, whatever the length: every tensor that the attention makes is looked at."""

from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from halfbyte.modules.attention import AttentionOptions

from .models import eager_and_ours, small, tokens, torch

MIB = 1 << 20


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor any operation returns while active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.nbytes = max(self.nbytes, tensor.untyped_storage().nbytes())
        return out


def largest(length: int, options: AttentionOptions) -> tuple[int, int]:
    """Largest tensor of a prefill with transformers' eager attention, and with ours."""
    model = small()

    def run(m: Any) -> int:
        with LargestTensor() as seen:
            m(tokens(1, length), use_cache=True, logits_to_keep=1)
        return int(seen.nbytes)

    theirs, ours = eager_and_ours(model, run, options)
    return theirs, ours


@pytest.mark.parametrize("ties", [False, True])
def test_largest_tensor_grows_with_the_context_not_its_square(ties: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if ties:
        monkeypatch.setattr(
            "halfbyte.modules.attention.indexer.IndexQueries.rounding",
            lambda self, keys: torch.full(self.q.shape[:2], torch.inf),  # every row is scored a second time
        )
    options = AttentionOptions(scratch_bytes=MIB)
    (theirs, ours), (theirs_twice, ours_twice) = largest(1024, options), largest(2048, options)
    assert theirs_twice > 3.9 * theirs
    assert ours <= MIB
    assert ours_twice <= MIB
