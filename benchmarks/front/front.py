"""What a newcomer waits for: the demo from a fresh clone, step by step, the installed size, the start of the command.

    .venv/bin/python -m benchmarks.front.front [--runs 15]

Everything is made anew in a temporary folder: clone, environment, demo. Packages come from the index that pip is
set to.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import ROOT, record, show


def timed(*command: str, cwd: Path | None = None) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        seconds = {"clone": timed("git", "clone", "-q", str(ROOT), str(clone))[0]}
        seconds["environment"] = timed("make", ".venv-demo/ready", f"PYTHON={sys.executable}", cwd=clone)[0]
        seconds["demo"], said = timed("make", "demo", cwd=clone)
        steps = re.findall(r"^\$ halfbyte (\w+).*?^\((\d+\.\d) s\)$", said, re.MULTILINE | re.DOTALL)
        env = Path(folder, "alone")
        seconds["pip install ."] = timed(sys.executable, "-m", "venv", str(env))[0]
        seconds["pip install ."] += timed(str(env / "bin/pip"), "install", "-q", str(clone))[0]
        timed(str(env / "bin/pip"), "uninstall", "-q", "-y", "pip", "setuptools")
        megabytes = sum(one.stat().st_size for one in env.rglob("*") if one.is_file() and not one.is_symlink()) / 1e6
        starts = {
            "halfbyte --help": (str(env / "bin/halfbyte"), "--help"),
            "import halfbyte.api": (str(env / "bin/python"), "-c", "import halfbyte.api"),
            "import transformers": (sys.executable, "-c", "import transformers"),
            "import torch": (sys.executable, "-c", "import torch"),
        }
        medians = {
            name: statistics.median(timed(*command)[0] for _ in range(options.runs)) for name, command in starts.items()
        }
    rows = [[name, f"{float(value):.2f}"] for name, value in [*seconds.items(), *steps, *medians.items()]]
    show(f"seconds; pip install . alone takes {megabytes:.0f} MB", ["what", "s"], rows)
    record("front", {"seconds": seconds, "steps": steps, "megabytes": megabytes, "start_seconds": medians})


if __name__ == "__main__":
    main()
