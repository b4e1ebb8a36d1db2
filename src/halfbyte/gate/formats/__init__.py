"""A decision in the formats of those who read it: people, programs, code scanning, CI, a browser."""

from collections.abc import Callable
from typing import Any

from halfbyte.errors import UsageError
from halfbyte.text import block, json_text

FORMATS = ("table", "json", "sarif", "junit", "html")


def rendered(document: dict[str, Any], form: str) -> str:
    """The text of a decision (`Decision.as_json`) in one format. Raises UsageError for an unknown one."""
    from halfbyte.gate.formats import html, junit, sarif, table

    writers: dict[str, Callable[[dict[str, Any]], str]] = {
        "table": table.rendered,
        "json": lambda found: json_text(found) + "\n",
        "sarif": sarif.rendered,
        "junit": junit.rendered,
        "html": html.rendered,
    }
    if form not in writers:
        raise UsageError(f"unknown format {form[:40]!r}", hint=f"known: {', '.join(FORMATS)}")
    return block(writers[form](document))
