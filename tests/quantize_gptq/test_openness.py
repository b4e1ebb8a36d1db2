"""The first pass: what each calibration token counts."""

from pathlib import Path

import pytest
import torch
from stream.models import checkpoint, sequences, whole_logits, whole_model

from halfbyte.quantize.calibrated import DataBounds
from halfbyte.quantize.rounding import openness
from halfbyte.quantize.rounding.openness import token_weights

BOUNDS = DataBounds(None, None, None, "cpu")


def test_it_is_the_trace_of_the_predictions_fisher_information(tmp_path: Path) -> None:
    ids = sequences()
    ours = token_weights(checkpoint(), ids, 0.25, "key", BOUNDS, tmp_path, None)
    p = torch.cat([logits.softmax(-1) for logits in whole_logits(checkpoint(), ids)])
    head = whole_model(checkpoint()).lm_head.weight.detach()
    information = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    wanted = torch.einsum("tuv,uh,vh->t", information, head, head)
    assert torch.allclose(ours, wanted / wanted.mean() + 0.25, atol=1e-5)
    assert float(ours.mean()) == pytest.approx(1.25, rel=1e-5)


def test_it_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = token_weights(checkpoint(), sequences(), 0.25, "key", BOUNDS, tmp_path, None)
    monkeypatch.setattr(openness, "_openness", None)
    assert torch.equal(token_weights(checkpoint(), sequences(), 0.25, "key", BOUNDS, tmp_path, None), first)
    with pytest.raises(TypeError):
        token_weights(checkpoint(), sequences(), 0.25, "another key", BOUNDS, tmp_path, None)
