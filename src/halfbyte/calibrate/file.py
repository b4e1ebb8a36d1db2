"""The scales file: amax by module path, and under one key of its own how they came about.

`quantize.input_scale.from_file` reads it.
"""

from collections.abc import Mapping
from pathlib import Path

from halfbyte.checkpoint.writer import write_whole
from halfbyte.evidence.calibration import CALIBRATION_KEY, Calibration
from halfbyte.evidence.record import json_bytes


def write_scales(path: Path, values: Mapping[str, float], about: Calibration) -> None:
    """Write the file, complete or not at all. Raises OutputError."""
    write_whole(path, json_bytes({**values, CALIBRATION_KEY: about.as_json()}, indent=1, ascii=True))
