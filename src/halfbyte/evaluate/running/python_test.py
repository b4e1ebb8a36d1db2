"""A model's code and the test that it must pass, run in a process of their own with limits.

The limits stop accidents: endless loops, full memory, large files, floods of processes. They are no wall against code
that means harm; run such suites in a container.
"""

import os
import resource
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS, MEMORY_BYTES, FILE_BYTES, OUTPUT_FILES = 10, 1 << 30, 16 << 20, 64


def passes(code: str, test: str) -> bool:
    """Whether `test` ends without an error after `code`: code that leaves before it ends has not passed."""
    with tempfile.TemporaryDirectory(prefix="halfbyte-test-") as folder:
        end = Path(folder, f"passed-{secrets.token_hex(8)}")
        command = [sys.executable, "-I", "-S", "-c", f"{code}\n\n{test}\nopen({str(end)!r}, 'x').close()\n"]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={"PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=2 * SECONDS,
                start_new_session=True,
                preexec_fn=_limit,
            )
        except (subprocess.TimeoutExpired, ValueError):  # ValueError: a null byte in the code
            return False
        return done.returncode == 0 and end.exists()


def _limit() -> None:
    for kind, most in (
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OUTPUT_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
