"""The scales file: amax by module path, and under one key of its own the evidence of how they came about.

`quantize.input_scale.from_file` reads it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.writer import write_whole

EVIDENCE_KEY = "halfbyte"


def write_scales(path: Path, values: Mapping[str, float], evidence: Mapping[str, Any]) -> None:
    """Write the file, complete or not at all. Raises OutputError."""
    content = json.dumps(dict(values) | {EVIDENCE_KEY: dict(evidence)}, indent=1).encode() + b"\n"
    write_whole(path, content)
