"""The vectors that ModelOpt recorded in `tests/golden/nvfp4_vectors.npz`; `record.py` there documents the layout."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

GOLDEN = Path(__file__).parent.parent / "golden"
DTYPES = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "f32": np.float32}


class Case(NamedTuple):
    """One source and what ModelOpt made of it. given: the scale_2 that ModelOpt was told, None if it computed it."""

    weight: npt.NDArray[Any]
    given: np.float32 | None
    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.uint8]
    scale_2: np.float32
    decoded: npt.NDArray[np.float32]


def _cases() -> dict[str, Case]:
    cases = {}
    with np.load(GOLDEN / "nvfp4_vectors.npz") as archive:
        for name, about in json.loads(archive["__meta__"].tobytes())["cases"].items():
            suffix = name.rpartition("_")[2]
            scale_2 = archive[f"{name}.scale_2"].view(np.float32)[()]
            cases[name] = Case(
                archive[f"{name}.{suffix}"].view(DTYPES[suffix]),
                scale_2 if about["scale_2"] == "given" else None,
                archive[f"{name}.weight"],
                archive[f"{name}.weight_scale"],
                scale_2,
                archive[f"{name}.dequant"],
            )
    return cases


CASES = _cases()
MODELOPT_BUGS: dict[str, Any] = json.loads((GOLDEN / "modelopt_bugs.json").read_text())


def bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """float32 as integers, so that -0.0 and +0.0 differ."""
    return np.ascontiguousarray(values).view(np.uint32)
