"""How do inspect, plan and gate bear a checkpoint of a million tensors?

    python -m benchmarks.inspect.many_tensors [--tensors 1000000] [--runs 3] [--no-record]

Time is of the whole command, interpreter included, memory its peak resident set. The weights are holes.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.table import ROOT, record, show

sys.path.append(str(ROOT / "tests"))
from sound.many import write_many

COMMANDS = {"inspect": (), "plan": ("--gpu", "b200", "--gpus", "1"), "gate": ()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    rows, figures = [], []
    for packed in (False, True):
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work) / "many"
            count = write_many(folder, options.tensors, packed=packed, shards=options.shards)
            for command, more in COMMANDS.items():
                runs = [run([command, str(folder), *more]) for _ in range(options.runs)]
                seconds, peak = [one[0] for one in runs], max(one[1] for one in runs)
                kind = "nvfp4" if packed else "bf16"
                spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
                rows.append([command, kind, f"{count:,}", str(options.shards), spread, f"{peak / 1e6:.0f}", runs[0][2]])
                figures.append({"verb": command, "kind": kind, "tensors": count, "seconds": seconds, "peak": peak})
    show("very many tensors", ["command", "experts", "tensors", "shards", "median s", "peak MB", "exit"], rows)
    if not options.no_record:
        record("many_tensors", {"shards": options.shards, "rows": figures})


MEASURED = """
import os, subprocess, sys, time
began = time.monotonic()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(time.monotonic() - began, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""
"""In a small process between: a child's peak counts what its parent held when it was started."""


def run(arguments: list[str]) -> tuple[float, int, str]:
    """Seconds, peak bytes and exit code of one command."""
    words = [sys.executable, "-c", MEASURED, sys.executable, "-m", "halfbyte", *arguments]
    seconds, peak, code = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), int(peak) * 1024, code


if __name__ == "__main__":
    main()
