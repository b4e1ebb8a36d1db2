"""numba's cache on disk must notice a change in every file that is compiled in, not in kernels.py alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import halfbyte

DECODE_ONE = """
import numpy as np
from halfbyte.formats.nvfp4 import codec
from halfbyte.formats.nvfp4.reference import Encoded
print(codec.decode(Encoded(np.full((1, 8), 0x22, np.uint8), np.full((1, 1), 0x38, np.uint8), np.float32(1)))[0, 0])
"""


def test_an_edited_vector_module_is_compiled_anew(tmp_path: Path) -> None:
    package = tmp_path / "halfbyte"
    shutil.copytree(Path(halfbyte.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))

    def decoded() -> str:
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        environment.pop("NUMBA_CACHE_DIR", None)
        command = [sys.executable, "-c", DECODE_ONE]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert decoded() == "1.0"
    assert list(package.glob("formats/nvfp4/__pycache__/kernels.decode-*.nbc"))
    vector = package / "formats" / "nvfp4" / "vector.py"
    vector.write_text(vector.read_text().replace("[0.5] * LANES", "[0.25] * LANES"))
    assert decoded() == "0.5"
