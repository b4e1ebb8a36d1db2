"""Whom a finding blames."""

from typing import Any


def blamed(finding: dict[str, Any]) -> str:
    """The tensor, module or file of a finding, empty if there is none."""
    return str(finding.get("tensor") or finding.get("module") or finding.get("file") or "")
