"""IFBench: 300 prompts whose constraints its own code checks, from the user's clone of allenai/IFBench.

That code runs in one process beside, with what it needs installed there (spacy, nltk and others). An answer is right if
every constraint holds under its loose reading: also without the first or last line, and without asterisks.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from halfbyte.disk import read_regular
from halfbyte.errors import DataError, HalfbyteError
from halfbyte.text import json_of

PROMPTS = "data/IFBench_test.jsonl"
CODE = "evaluation_lib.py"
PROMPTS_SHA256 = "a2bf7b8e7ed11d39c65b4ec781da8b99663ed0121f97033d70fcecb61f8a9d85"
"""Of the 300 prompts as published."""
_LIMIT_BYTES = 50_000_000
_WORKER = """
import json, sys
sys.path.insert(0, sys.argv[1])
out, sys.stdout = sys.stdout, sys.stderr
import evaluation_lib as lib
for line in sys.stdin:
    asked = json.loads(line)
    try:
        row = asked["row"]
        inp = lib.InputExample(row["key"], row["instruction_id_list"], row["prompt"], row["kwargs"])
        found = lib.test_instruction_following_loose(inp, {row["prompt"]: asked["response"]})
        said = {"right": bool(found.follow_all_instructions)}
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"[:300]}
    print(json.dumps(said), file=out, flush=True)
"""


class CheckerError(HalfbyteError):
    """IFBench's own code that could not check."""

    kind = "bad-data"


def read_prompts(clone: Path) -> list[dict[str, Any]]:
    """Items. Raises DataError."""
    path = clone / PROMPTS
    try:
        rows = [json_of(line) for line in read_regular(path, _LIMIT_BYTES, DataError).splitlines() if line.strip()]
        return [
            {"id": str(row["key"]), "prompt": row["prompt"], "reference": row, "checker": "ifbench"} for row in rows
        ]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: is not IFBench's file of prompts") from None


class Checker:
    """IFBench's code in a process of its own, started with the first answer."""

    def __init__(self, clone: Path) -> None:
        self._clone, self._lock = clone, threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def is_right(self, response: str, row: dict[str, Any]) -> bool:
        """Raises CheckerError where that code fails."""
        with self._lock:
            if self._process is None:
                command = [sys.executable, "-c", _WORKER, str(self._clone.resolve())]
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            try:
                self._process.stdin.write(json.dumps({"row": row, "response": response}) + "\n")
                self._process.stdin.flush()
                said = json.loads(self._process.stdout.readline() or "{}")
            except (OSError, ValueError):
                said = {}
            if "right" not in said:
                why = said.get("error", "its code does not start; install what its requirements.txt names")
                raise CheckerError(f"{self._clone}: IFBench's own code: {why}")
            return bool(said["right"])
