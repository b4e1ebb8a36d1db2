"""`plan.json`: the document that serve, deploy and gate read. `Plan.as_json` writes it."""

import json
from pathlib import Path
from typing import Any

from halfbyte.errors import UsageError

PLAN_VERSION = 1
REQUIRED = ("fits", "checkpoint_bytes", "per_gpu", "kv_tokens", "engine_flags", "deployment")


def read_plan(path: str | Path) -> dict[str, Any]:
    """A plan written by `halfbyte plan --output`. Raises UsageError naming the file and what is wrong with it."""
    try:
        document = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as a plan: {str(error)[:200]}") from None
    version = document.get("plan_version") if isinstance(document, dict) else None
    if version != PLAN_VERSION:
        raise UsageError(
            f"{path}: plan_version {version}, wanted {PLAN_VERSION}", hint="write it with halfbyte plan -o"
        )
    missing = [key for key in REQUIRED if key not in document]
    if missing:
        raise UsageError(f"{path}: the plan lacks {', '.join(missing)}", hint="write it with halfbyte plan -o")
    return dict(document)
