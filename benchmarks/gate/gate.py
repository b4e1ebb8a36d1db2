"""How fast is the gate on a full-size GLM-5.2-NVFP4, and what do the policies say of its variants?

    python -m benchmarks.gate.gate [--runs 5] [--no-record]

Time is of the whole command `halfbyte gate`, interpreter included, memory its peak resident set.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.table import ROOT, record, show

sys.path.append(str(ROOT / "tests"))
from gate.full_size import KINDS, SHARDS, write_full_size

POLICIES = ("default", "glm-5.2-nvfp4-production", "research")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    rows: list[list[str]] = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as work:
            folder = write_full_size(Path(work) / "glm", kind)
            if not rows:
                timed = [run(folder, "default") for _ in range(options.runs)]
            for policy in POLICIES:
                rows.append([kind, policy, *said(folder, policy)])
            shutil.rmtree(folder)
    show(
        "GLM-5.2 in NVFP4 by each policy, --hardware b200x8, depth headers",
        ["packed", "policy", "decision", "why"],
        rows,
    )
    seconds, peak = [row[0] for row in timed], max(row[1] for row in timed)
    middle = statistics.median(seconds)
    tensors = timed[0][2]["checkpoint"]["tensors"]
    columns = ["tensors", "shards", "median s", "least s", "most s", "peak MB"]
    row = [
        f"{tensors:,}",
        str(SHARDS),
        f"{middle:.2f}",
        f"{min(seconds):.2f}",
        f"{max(seconds):.2f}",
        f"{peak / 1e6:.0f}",
    ]
    show("halfbyte gate, whole command", columns, [row])
    if not options.no_record:
        figures = {"tensors": tensors, "seconds": seconds, "median_seconds": middle, "peak_rss_bytes": peak}
        record("gate", figures)


def run(folder: Path, policy: str) -> tuple[float, int, dict[str, Any]]:
    """Seconds, peak bytes and decision of one command."""
    command = [sys.executable, "-m", "halfbyte", "gate", str(folder), "--policy", policy, "--hardware", "b200x8"]
    began = time.monotonic()
    child = subprocess.Popen([*command, "--format", "json"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    text = child.stdout.read()
    _, _, usage = os.wait4(child.pid, 0)
    return time.monotonic() - began, usage.ru_maxrss * 1024, json.loads(text)


def said(folder: Path, policy: str) -> list[str]:
    """The decision and the rules behind it."""
    found = run(folder, policy)[2]
    refusing = [f for f in found["findings"] if f["severity"] == "deny" and not f["waived"]]
    rules = list(dict.fromkeys(f["rule"] for f in refusing))
    open_questions = [f["rule"] for f in found["findings"] if f["rule"] in ("evidence.exists", "gate.depth")]
    why = rules or (list(dict.fromkeys(open_questions)) if found["decision"] == "undecided" else [])
    return [found["decision"], ", ".join(why)]


if __name__ == "__main__":
    main()
