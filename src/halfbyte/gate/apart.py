"""Why the gate would refuse a checkpoint that was just written. A large one is judged in a process of its own: whoever
wrote it still holds its tensors, and headers of a hundred thousand more would be added to that."""

import json
import subprocess
import sys
from pathlib import Path

from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.errors import HalfbyteError
from halfbyte.gate.judge import gate

LARGE_INDEX_BYTES = 4_000_000
"""Some 40,000 tensors: a process takes half a second to start, their headers 40 MB."""


def refusals(folder: str | Path) -> list[str]:
    """Rule and message of each finding that refuses the checkpoint by the default policy, from its headers."""
    index = Path(folder) / INDEX_NAME
    if not index.is_file() or index.stat().st_size < LARGE_INDEX_BYTES:
        return _judged(folder)
    done = subprocess.run([sys.executable, "-m", "halfbyte.gate.apart", str(folder)], capture_output=True, text=True)
    try:
        return [str(line) for line in json.loads(done.stdout)]
    except ValueError:
        return [f"the gate ended with status {done.returncode}: {done.stderr.strip()[-200:]}"]


def _judged(folder: str | Path) -> list[str]:
    try:
        return [f"{found.rule}: {found.found.message}" for found in gate(folder).findings if found.refuses]
    except HalfbyteError as error:
        return [str(error.message)]


if __name__ == "__main__":
    print(json.dumps(_judged(sys.argv[1])))
