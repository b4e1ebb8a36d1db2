"""Chat templates: found, scanned and rendered in another process with limits on time, memory and output."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from halfbyte.gate.findings import Found, printable
from halfbyte.gate.reading import parse_json

LIMIT_BYTES = 1_000_000
SECONDS = 10
_WORKER = Path(__file__).with_name("template_sandbox.py")


def judge_templates(side: Mapping[str, bytes]) -> Iterator[Found]:
    """Every template of the files `side`."""
    for file, text in _templates(side):
        if text is None:
            yield Found(f"{file}: the chat template is no text", file=file)
        elif len(text) > LIMIT_BYTES:
            yield Found(f"{file}: a chat template of {len(text):,} characters", file=file)
        else:
            for severity, message in judge(text):
                yield Found(
                    f"{file}: chat template: {message}", file=file, at_most="deny" if severity == "deny" else "warn"
                )


def _templates(side: Mapping[str, bytes]) -> Iterator[tuple[str, str | None]]:
    for file, content in side.items():
        if file.endswith(".jinja"):
            try:
                yield file, content.decode("utf-8")
            except UnicodeDecodeError:
                yield file, None
        elif file in ("tokenizer_config.json", "chat_template.json"):
            found: Any = (parse_json(content)[0] or {}).get("chat_template")
            named = found if isinstance(found, list) else [found] if found is not None else []
            for entry in named:
                text = entry.get("template") if isinstance(entry, dict) else entry
                yield file, text if isinstance(text, str) else None


@lru_cache(64)
def judge(template: str) -> tuple[tuple[str, str], ...]:
    """(severity, message) of everything wrong with one template, `deny` or `warn`."""
    environment = {"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_WORKER)],
            input=json.dumps(template),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment,
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        return (("deny", f"renders for more than {SECONDS} s"),)
    try:
        return tuple((str(severity), printable(str(message), 400)) for severity, message in json.loads(done.stdout))
    except ValueError:
        return (("deny", f"ended its sandbox (status {done.returncode}): out of time or memory"),)
