"""What every benchmark here ends with: one table, and one JSON row appended to benchmarks/results/."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PEERS_PYTHON = ROOT / ".venv-peers/bin/python"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, so that it can be pasted."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    print(f"\n{title}\n")
    for row in [columns, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def record(name: str, row: dict[str, Any]) -> None:
    """Append a row, with what is needed to read it later and to make it again: command, commit and machine."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    machine = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "commit": commit.stdout.strip(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "numba": version("numba"),
        "numpy": version("numpy"),
    }
    path = ROOT / "benchmarks/results" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(machine | row) + "\n")
    print(f"\nrow appended to {path.relative_to(ROOT)}")


def command() -> str:
    """What was typed to make this row, from the repository's root: no path of the machine in it."""
    return shlex.join(["python", "-m", _module(), *sys.argv[1:]]).replace(f"{ROOT}/", "")


def again(*arguments: str) -> list[str]:
    """The running benchmark once more, in a process of its own; it starts in the repository's root, as this one did."""
    return [sys.executable, "-m", _module(), *arguments]


def _module() -> str:
    """Of the script that runs: `benchmarks.gate.gate`."""
    return ".".join(Path(sys.argv[0]).resolve().relative_to(ROOT).with_suffix("").parts)


def peer(script: str, *arguments: str) -> dict[str, Any] | None:
    """Run a peer's script in the peers' environment; None, said aloud, where that does not exist."""
    if not PEERS_PYTHON.exists():
        print(f"no .venv-peers (make .venv-peers/ready): {script} is left out")
        return None
    command = [str(PEERS_PYTHON), str(ROOT / "benchmarks/peers" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
