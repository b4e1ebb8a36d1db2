"""Evidence: comparisons and evaluations that the policy asks for, of these very shards, with the wanted result.

They stand in halfbyte.json under `compare` (written by `halfbyte compare`) and `evaluate`.
"""

from collections.abc import Iterator
from typing import Any

from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import Found, printable
from halfbyte.gate.hashes import identity_of_shards
from halfbyte.gate.reading import EVIDENCE_NAME
from halfbyte.gate.registry import rule
from halfbyte.recipes.policy import WantedEvidence


@rule(
    "evidence.exists",
    "deny",
    "Nothing about a checkpoint's quality follows from its bytes: the comparisons and evaluations that the policy "
    "names must have been made.",
)
def exists(facts: Facts) -> Iterator[Found]:
    for wanted in facts.policy.evidence:
        if not entries_of(facts, wanted):
            yield Found(f"no {_name(wanted)} in {EVIDENCE_NAME}", file=EVIDENCE_NAME, missing=True)


@rule("evidence.hashes", "deny", "A result of other bytes proves nothing about these.")
def hashes(facts: Facts) -> Iterator[Found]:
    ours = identity_of_shards(facts)
    for wanted in facts.policy.evidence:
        entries = entries_of(facts, wanted)
        if not entries:
            continue
        if ours is None:
            message = f"{_name(wanted)}: the shards' SHA-256 are not known; use --depth full, or keep {EVIDENCE_NAME}"
            yield Found(message, file=EVIDENCE_NAME, missing=True)
        elif not any(entry.get("candidate") == ours for entry in entries):
            stated = printable(str(entries[-1].get("candidate")), 80)
            message = f"{_name(wanted)} belongs to shards {stated}, these are {ours}"
            yield Found(message, file=EVIDENCE_NAME)


@rule("evidence.verdict", "deny", "The result must be at least what the policy asks for.")
def verdict(facts: Facts) -> Iterator[Found]:
    for wanted in facts.policy.evidence:
        entries = _of_these_shards(facts, wanted)
        problems = [list(_shortcomings(wanted, entry)) for entry in entries]
        if problems and all(problems):
            yield from (Found(f"{_name(wanted)}: {problem}", file=EVIDENCE_NAME) for problem in problems[-1])


@rule(
    "evidence.coverage",
    "deny",
    "Public tables cover short English prompts. What the policy names (a language, a context length) must have been "
    "measured by itself.",
)
def coverage(facts: Facts) -> Iterator[Found]:
    for wanted in facts.policy.evidence:
        entries = _of_these_shards(facts, wanted)
        if not entries:
            continue
        covered = {name.lower() for entry in entries for name in _slices(entry)}
        for name in wanted.slices:
            if name.lower() not in covered:
                message = f"{_name(wanted)} has no slice {name!r}; it has {', '.join(sorted(covered)) or 'none'}"
                yield Found(printable(message, 500), file=EVIDENCE_NAME, missing=True)
        longest = max((_context(entry) for entry in entries), default=0)
        if wanted.min_context is not None and longest < wanted.min_context:
            message = (
                f"{_name(wanted)} reaches a context of {longest:,} tokens, the policy asks for {wanted.min_context:,}"
            )
            yield Found(message, file=EVIDENCE_NAME, missing=True)


def entries_of(facts: Facts, wanted: WantedEvidence) -> list[dict[str, Any]]:
    """The recorded results of one kind, and of the suite if one is named."""
    rows = (facts.evidence or {}).get(wanted.kind)
    found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [row for row in found if wanted.suite is None or row.get("suite") == wanted.suite]


def _of_these_shards(facts: Facts, wanted: WantedEvidence) -> list[dict[str, Any]]:
    ours = identity_of_shards(facts)
    return [entry for entry in entries_of(facts, wanted) if ours is not None and entry.get("candidate") == ours]


def _shortcomings(wanted: WantedEvidence, entry: dict[str, Any]) -> Iterator[str]:
    if wanted.verdict is not None:
        reached = str(entry.get("verdict"))
        if reached.lower() != wanted.verdict.lower():
            yield f"verdict {printable(reached, 40)}, the policy asks for {wanted.verdict}"
    kl, agreement = _figure(entry, "kl", "high"), _figure(entry, "top1_agreement", "low")
    if wanted.max_kl is not None and not (kl is not None and kl <= wanted.max_kl):
        yield f"kl is {kl if kl is not None else 'not stated'}, the policy asks for at most {wanted.max_kl:g}"
    least = wanted.min_top1_agreement
    if least is not None and not (agreement is not None and agreement >= least):
        stated = agreement if agreement is not None else "not stated"
        yield f"top1_agreement is {stated}, the policy asks for at least {least:g}"
    tokens = _overall(entry).get("tokens")
    if wanted.min_tokens is not None and not (type(tokens) is int and tokens >= wanted.min_tokens):
        yield f"{printable(str(tokens), 20)} tokens, the policy asks for {wanted.min_tokens:,}"


def _overall(entry: dict[str, Any]) -> dict[str, Any]:
    """Where the figures over all tokens stand."""
    inner = entry.get("overall")
    return inner if isinstance(inner, dict) else entry


def _figure(entry: dict[str, Any], key: str, end: str) -> float | None:
    """The interval's end that counts against the candidate; the mean where there is no interval."""
    value = _overall(entry).get(key)
    if isinstance(value, dict):
        value = value.get(end) if value.get(end) is not None else value.get("mean")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _slices(entry: dict[str, Any]) -> Iterator[str]:
    """Names of measured slices: `{field: {value: figures}}`, or a list."""
    found = entry.get("slices")
    if isinstance(found, list):
        yield from (
            row if isinstance(row, str) else str(row.get("name")) for row in found if isinstance(row, str | dict)
        )
    recall = entry.get("recall")
    for row in recall if isinstance(recall, list) else []:
        if isinstance(row, dict) and isinstance(row.get("language"), str):
            yield row["language"]
    for field, values in found.items() if isinstance(found, dict) else ():
        yield str(field)
        if isinstance(values, dict):
            for value, figures in values.items():
                if not isinstance(figures, dict) or figures.get("tokens") != 0:
                    yield str(value)
                    yield f"{field}={value}"


def _context(entry: dict[str, Any]) -> int:
    """The longest context measured, in tokens."""
    stated = entry.get("max_context")
    longest = [stated] if type(stated) is int else []
    for key, end in (("positions", "stop"), ("recall", "length")):
        rows = entry.get(key)
        for row in rows if isinstance(rows, list) else []:
            if isinstance(row, dict) and type(row.get(end)) is int:
                longest.append(row[end])
    return max(longest, default=0)


def _name(wanted: WantedEvidence) -> str:
    return f"{wanted.kind} {wanted.suite}" if wanted.suite else wanted.kind
