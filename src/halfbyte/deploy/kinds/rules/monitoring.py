"""Rules of Prometheus: what its operator or Prometheus itself refuses. Expressions are promtool's to judge."""

import re
from collections.abc import Iterator
from typing import Any

from halfbyte.deploy.kinds.rules.places import twice

Document = dict[str, Any]

METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def prometheus_rule(document: Document) -> Iterator[str]:
    groups = document["spec"].get("groups") or ()
    yield from twice("spec.groups", (group["name"] for group in groups))
    for group in groups:
        for number, rule in enumerate(group.get("rules") or ()):
            yield from _rule(f"spec.groups.{group['name']}.rules.{number}", rule)


def _rule(field: str, rule: Document) -> Iterator[str]:
    given = [key for key in ("record", "alert") if rule.get(key)]
    if len(given) != 1:
        yield f"{field}: has {' and '.join(given) or 'no name'}, wanted one of record and alert"
    if not str(rule["expr"]).strip():
        yield f"{field}.expr: empty"
    if rule.get("record"):
        if not METRIC.fullmatch(rule["record"]):
            yield f"{field}.record: {rule['record']!r} is no name of a metric"
        for key in ("for", "annotations", "keep_firing_for"):
            if rule.get(key):
                yield f"{field}.{key}: not in a recording rule"
