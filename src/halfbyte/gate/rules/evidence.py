"""Evidence: comparisons and evaluations that the policy asks for, of these very shards, with the wanted result.

They stand in halfbyte.json under `compare` (written by `halfbyte compare`) and `evaluate`.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from halfbyte.evidence.comparison import Compared, ComparisonResult, Evaluated
from halfbyte.evidence.names import DOSSIER
from halfbyte.evidence.soundness import impossible
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import Found, printable
from halfbyte.gate.hashes import identity_of_shards
from halfbyte.gate.registry import rule
from halfbyte.recipes.policy import WantedEvidence

MOST_FINDINGS = 20


@rule(
    "evidence.exists",
    "deny",
    "Nothing about a checkpoint's quality follows from its bytes: the comparisons and evaluations that the policy "
    "names must have been made.",
)
def exists(facts: Facts) -> Iterator[Found]:
    for wanted in facts.policy.evidence:
        if not entries_of(facts, wanted):
            yield Found(f"no {_name(wanted)} in {DOSSIER}", file=DOSSIER, missing=True)


@rule("evidence.hashes", "deny", "A result of other bytes proves nothing about these.")
def hashes(facts: Facts) -> Iterator[Found]:
    ours = identity_of_shards(facts)
    for wanted in facts.policy.evidence:
        entries = entries_of(facts, wanted)
        if not entries:
            continue
        if ours is None:
            message = f"{_name(wanted)}: the shards' SHA-256 are not known; use --depth full, or keep {DOSSIER}"
            yield Found(message, file=DOSSIER, missing=True)
        elif not any(entry.candidate == ours for entry in entries):
            stated = printable(entries[-1].candidate, 80)
            message = f"{_name(wanted)} belongs to shards {stated}, these are {ours}"
            yield Found(message, file=DOSSIER)


@rule(
    "evidence.figures",
    "deny",
    "A negative divergence, a share above one, a mean outside its interval: such figures were not measured, and what "
    "stands beside them proves nothing either.",
)
def figures(facts: Facts) -> Iterator[Found]:
    if facts.evidence is None:
        return
    recorded: tuple[tuple[str, Sequence[Compared | Evaluated]], ...] = (
        ("compare", facts.evidence.compare),
        ("evaluate", facts.evidence.evaluate),
    )
    for kind, rows in recorded:
        for number, row in enumerate(rows):
            for problem in islice(impossible(row), MOST_FINDINGS):
                yield Found(f"{kind}[{number}]: {printable(problem, 300)}", file=DOSSIER)


@rule("evidence.verdict", "deny", "The result must be at least what the policy asks for.")
def verdict(facts: Facts) -> Iterator[Found]:
    for wanted in facts.policy.evidence:
        entries = _of_these_shards(facts, wanted)
        problems = [list(_shortcomings(wanted, entry)) for entry in entries]
        worst = max(problems, key=len, default=[])  # the worst of several counts: a good one beside it excuses nothing
        yield from (Found(f"{_name(wanted)}: {problem}", file=DOSSIER) for problem in worst)


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
        measured = [entry.figures if isinstance(entry, Compared) else entry for entry in entries]
        covered = {name.lower() for one in measured for name in one.names_covered()}
        for name in wanted.slices:
            if name.lower() not in covered:
                message = f"{_name(wanted)} has no slice {name!r}; it has {', '.join(sorted(covered)) or 'none'}"
                yield Found(printable(message, 500), file=DOSSIER, missing=True)
        longest = max(one.max_context for one in measured)
        if wanted.min_context is not None and longest < wanted.min_context:
            message = (
                f"{_name(wanted)} reaches a context of {longest:,} tokens, the policy asks for {wanted.min_context:,}"
            )
            yield Found(message, file=DOSSIER, missing=True)


def entries_of(facts: Facts, wanted: WantedEvidence) -> Sequence[Compared | Evaluated]:
    """The recorded results of one kind, and of the suite if one is named: comparisons have none."""
    if facts.evidence is None:
        return []
    if wanted.kind == "compare":
        return facts.evidence.compare if wanted.suite is None else []
    return [row for row in facts.evidence.evaluate if wanted.suite in (None, row.suite)]


def _of_these_shards(facts: Facts, wanted: WantedEvidence) -> list[Compared | Evaluated]:
    ours = identity_of_shards(facts)
    return [entry for entry in entries_of(facts, wanted) if entry.candidate == ours]


def _shortcomings(wanted: WantedEvidence, entry: Compared | Evaluated) -> Iterator[str]:
    if wanted.verdict is not None:
        reached = str(entry.verdict) if isinstance(entry, Evaluated) else "None"
        if reached.lower() != wanted.verdict.lower():
            yield f"verdict {printable(reached, 40)}, the policy asks for {wanted.verdict}"
    figures = entry.figures if isinstance(entry, Compared) else ComparisonResult()
    kl = figures.kl.worst_high() if figures.kl else None
    if wanted.max_kl is not None and not (kl is not None and kl <= wanted.max_kl):
        yield f"kl is {kl if kl is not None else 'not stated'}, the policy asks for at most {wanted.max_kl:g}"
    agreement, least = figures.top1_agreement.worst_low() if figures.top1_agreement else None, wanted.min_top1_agreement
    if least is not None and not (agreement is not None and agreement >= least):
        stated = agreement if agreement is not None else "not stated"
        yield f"top1_agreement is {stated}, the policy asks for at least {least:g}"
    tokens = figures.tokens
    if wanted.min_tokens is not None and not (tokens is not None and tokens >= wanted.min_tokens):
        yield f"{tokens} tokens, the policy asks for {wanted.min_tokens:,}"


def _name(wanted: WantedEvidence) -> str:
    return f"{wanted.kind} {wanted.suite}" if wanted.suite else wanted.kind
