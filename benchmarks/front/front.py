"""What a newcomer waits for: the demo from a fresh clone, step by step, the installed size, the start of the command.

    .venv/bin/python -m benchmarks.front.front [--runs 15]

Everything is made anew in a temporary folder: clone, environment, demo, and an environment for each peer alone.
Packages come from the index that pip is set to; what a peer's import needs and does not declare is installed with it.
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

PEERS = {
    "transformers": ("transformers", "benchmarks/peers/requirements.txt"),
    "nvidia-modelopt": ("modelopt.torch.quantization", "benchmarks/peers/requirements.txt"),
    "llmcompressor": ("llmcompressor", "benchmarks/peers/requirements-llmcompressor.txt"),
}
"""Distribution -> what a user imports of it, and where its version is pinned."""
NEEDED = {"transformers": (), "nvidia-modelopt": ("torch", "transformers", "requests"), "llmcompressor": ("torch",)}
"""Of the same file: what its import needs and pip does not bring, or not in this version."""


def timed(*command: str, cwd: Path | None = None) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start, done.stdout


def alone(env: Path, *packages: str) -> tuple[float, float]:
    """Seconds to install packages into an environment of their own, and its megabytes without pip (torch is not
    imported without setuptools, which stays beside it)."""
    seconds = timed(sys.executable, "-m", "venv", str(env))[0]
    seconds += timed(str(env / "bin/pip"), "install", "-q", *packages)[0]
    left = [] if any(package.startswith("torch==") for package in packages) else ["setuptools"]
    timed(str(env / "bin/pip"), "uninstall", "-q", "-y", "pip", *left)
    files = (one for one in env.rglob("*") if one.is_file() and not one.is_symlink())
    return seconds, sum(one.stat().st_size for one in files) / 1e6


def pinned(peer: str, requirements: str) -> list[str]:
    """What to install of a peer, and of what it must be installed with."""
    lines = (ROOT / requirements).read_text().split()
    return [line for line in lines if line.partition("==")[0] in (peer, *NEEDED[peer]) and "==" in line]


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
        seconds["pip install ."], megabytes = alone(env, str(clone))
        starts = {
            "halfbyte --help": (str(env / "bin/halfbyte"), "--help"),
            "import halfbyte.api": (str(env / "bin/python"), "-c", "import halfbyte.api"),
        }
        sizes = {"halfbyte": megabytes}
        for peer, (module, requirements) in PEERS.items():
            own = Path(folder, peer)
            seconds[f"pip install {peer}"], sizes[peer] = alone(own, *pinned(peer, requirements))
            starts[f"import {module}"] = (str(own / "bin/python"), "-c", f"import {module}")
            timed(*starts[f"import {module}"])  # compiled once
        medians = {
            name: statistics.median(timed(*command)[0] for _ in range(options.runs)) for name, command in starts.items()
        }
    rows = [[name, f"{float(value):.2f}"] for name, value in [*seconds.items(), *steps, *medians.items()]]
    show("seconds", ["what", "s"], rows)
    show("installed alone", ["what", "MB"], [[name, f"{size:.0f}"] for name, size in sizes.items()])
    found = {"seconds": seconds, "steps": steps, "megabytes": megabytes, "megabytes_alone": sizes}
    record("front", found | {"start_seconds": medians})


if __name__ == "__main__":
    main()
