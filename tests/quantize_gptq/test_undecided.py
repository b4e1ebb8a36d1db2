"""The first pass: what each calibration token counts."""

from pathlib import Path

import pytest
import torch
from stream.models import checkpoint, sequences, whole_logits

from halfbyte.quantize.calibrated import Bounds
from halfbyte.quantize.gptq import undecided
from halfbyte.quantize.gptq.undecided import token_weights

BOUNDS = Bounds(None, None, None, "cpu")


def test_it_is_the_chance_that_two_draws_differ(tmp_path: Path) -> None:
    ids = sequences()
    ours = token_weights(checkpoint(), ids, 0.25, "key", BOUNDS, tmp_path, None)
    p = torch.cat([logits.softmax(-1) for logits in whole_logits(checkpoint(), ids)])
    wanted = 1 - p.square().sum(-1)
    assert torch.allclose(ours, wanted / wanted.mean() + 0.25, atol=1e-5)
    assert float(ours.mean()) == pytest.approx(1.25, rel=1e-5)


def test_it_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = token_weights(checkpoint(), sequences(), 0.25, "key", BOUNDS, tmp_path, None)
    monkeypatch.setattr(undecided, "_undecided", None)
    assert torch.equal(token_weights(checkpoint(), sequences(), 0.25, "key", BOUNDS, tmp_path, None), first)
    with pytest.raises(TypeError):
        token_weights(checkpoint(), sequences(), 0.25, "another key", BOUNDS, tmp_path, None)
