"""Formats that others write, decoded to the bits that their own libraries read (`tests/golden/record_formats.py`)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from halfbyte.formats.catalogue import recognised

from .test_formats import Stored

GOLDEN = np.load(Path(__file__).parents[1] / "golden/formats_vectors.npz")
META = json.loads(GOLDEN["__meta__"].tobytes())
CASES = sorted(key.removesuffix(".read") for key in META["parts"] if key.endswith(".read"))


@pytest.mark.parametrize("case", CASES)
def test_as_its_own_library_reads_it(case: str) -> None:
    found = {key.rpartition(".")[2]: key for key in META["parts"] if key.startswith(f"{case}.") and key[-5:] != ".read"}
    parts = {
        part: Stored(f"m.{part}", dtype, tuple(shape))
        for part, key in found.items()
        for dtype, shape in [META["parts"][key]]
    }
    raw = {part: GOLDEN[key] for part, key in found.items()}
    form, shape = recognised(
        dict(sorted(parts.items(), key=lambda item: "packed" not in item[0] and item[0] != "weight"))
    )
    assert form.name == case.partition(" ")[0]
    wanted = GOLDEN[f"{case}.weight.float32"]
    assert shape == wanted.shape
    ours = form.decode(parts, raw)
    theirs = form.decode_torch(
        parts, {part: torch.from_numpy(data.copy()) for part, data in raw.items()}, torch.float32
    )
    assert np.array_equal(ours, theirs.numpy())
    read_as = getattr(torch, META["parts"][f"{case}.read"].removeprefix("torch."))
    read = torch.from_numpy(ours).to(read_as).float().numpy()
    assert np.array_equal(read.view(np.uint32), wanted.view(np.uint32))  # the sign of a zero too
