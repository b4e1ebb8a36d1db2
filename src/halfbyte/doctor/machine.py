"""What this machine has: processors, memory, GPUs, and how fast a disk is."""

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from halfbyte.disk import reason

GPU_SECONDS = 20
PIECE_BYTES = 4_000_000
QUERY = ("name", "memory.total", "compute_cap", "driver_version")


def memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gpus() -> tuple[list[dict[str, Any]], str | None]:
    """Name, bytes of memory, compute capability and driver of each, as nvidia-smi says; and why there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [], "no nvidia-smi here"
    try:
        asked = [tool, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=GPU_SECONDS, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi: {reason(error)}"[:200]
    if done.returncode:
        return [], f"nvidia-smi: {(done.stdout + done.stderr).strip()[:200]}"
    found = []
    for row in done.stdout.splitlines():
        cells = [cell.strip() for cell in row.split(",")]
        if len(cells) == len(QUERY):
            name, mebibytes, capability, driver = cells
            size = int(mebibytes) * 2**20 if mebibytes.isdecimal() else None
            found.append({"name": name, "bytes": size, "compute_capability": capability, "driver": driver})
    return found, None if found else "nvidia-smi names none"


def disk(folder: Path, size_bytes: int) -> dict[str, Any]:
    """Bytes a second of writing a file there to the disk, and of reading it back past the cache.

    error: why it could not be measured; the file is gone afterwards.
    """
    piece = os.urandom(PIECE_BYTES)
    pieces = max(1, size_bytes // PIECE_BYTES)
    try:
        with NamedTemporaryFile(dir=folder, prefix=".halfbyte-doctor-") as file:
            start = time.perf_counter()
            for _ in range(pieces):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            written = time.perf_counter()
            with suppress(OSError, AttributeError):  # where the cache cannot be dropped, reading is memory's speed
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            begun = time.perf_counter()
            while file.read(PIECE_BYTES):
                pass
            done = time.perf_counter()
    except OSError as error:
        return {"folder": str(folder), "error": reason(error)}
    total = pieces * PIECE_BYTES
    return {
        "folder": str(folder),
        "bytes": total,
        "write_bytes_per_s": round(total / max(written - start, 1e-9)),
        "read_bytes_per_s": round(total / max(done - begun, 1e-9)),
        "free_bytes": shutil.disk_usage(folder).free,
    }
