"""Peak memory does not grow with the checkpoint."""

import subprocess
import sys
from pathlib import Path

from export.checkpoints import family_checkpoint

MEASURE = """
import sys
from halfbyte.export import export
export(sys.argv[1], sys.argv[2])
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""Prints the peak in KiB. (getrusage would count the parent's memory from before exec.)"""


def peak_bytes(source: Path, out: Path) -> int:
    command = [sys.executable, "-c", MEASURE, str(source), str(out)]
    return 1024 * int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_eight_times_the_checkpoint_takes_no_more_memory(tmp_path: Path) -> None:
    """40 and 320 MB of experts, cut into the same pieces."""
    sizes = {"hidden_size": 1024, "moe_intermediate_size": 1024, "num_experts": 3}
    peaks = []
    for layers in (2, 16):
        source = family_checkpoint(tmp_path / f"{layers}", "Qwen3-30B-A3B", num_hidden_layers=layers, **sizes)
        peaks.append(peak_bytes(source, tmp_path / f"{layers}.gguf"))
    assert peaks[1] < peaks[0] + 60_000_000
    assert max(peaks) < 600_000_000
