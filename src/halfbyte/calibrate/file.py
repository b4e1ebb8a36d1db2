"""The scales file: amax by module path, and under one key of its own the evidence of how they came about.

`quantize.input_scale.from_file` reads it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.writer import output_error

EVIDENCE_KEY = "halfbyte"


def write_scales(path: Path, values: Mapping[str, float], evidence: Mapping[str, Any]) -> None:
    """Write the file, complete or not at all. Raises OutputError."""
    content = json.dumps(dict(values) | {EVIDENCE_KEY: dict(evidence)}, indent=1).encode() + b"\n"
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise output_error(path, error) from None
