"""`evaluate`: asks both arms, or reads what others asked, and judges; what the verdict rests on is kept beside it."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from halfbyte.errors import UndecidableError, UsageError, said
from halfbyte.evaluate.calibrating import Noise, noise
from halfbyte.evaluate.harnesses.reading import read_arm
from halfbyte.evaluate.judging import Judgement, Outcome, SuiteVerdict, judge
from halfbyte.evaluate.options import EvaluateOptions
from halfbyte.evaluate.power import Power, power, power_of, undecidable
from halfbyte.evaluate.recording import Judged, record, write_records
from halfbyte.evaluate.running.arms import Answers, Asked, answers, earlier, scores
from halfbyte.evaluate.running.catalogue import asked_suites
from halfbyte.evaluate.running.chosen import Chosen, chosen
from halfbyte.evaluate.running.embedded import Engine
from halfbyte.evaluate.running.sequential import Look, sequentially
from halfbyte.evaluate.running.suite import AskedSuite
from halfbyte.evaluate.suites import BUILT, DEFAULT_SUITE, PUBLISHED, UNKNOWN_ACCURACY, Suite
from halfbyte.evidence.names import DOSSIER
from halfbyte.progress import Progress, Silent

DEFAULT_RUNS = 2
"""Of each item, for --calibrate."""


@dataclass(frozen=True)
class Evaluation:
    """verdict: None without a baseline. judgement: None then. document: as `--json` prints it."""

    verdict: Outcome | None
    judgement: Judgement | None
    document: dict[str, Any]


def planned(options: EvaluateOptions) -> Power:
    """`--power`: what the suite can decide. Raises UsageError, DataError."""
    name = options.suite or DEFAULT_SUITE
    more = {key: getattr(options, key) for key in ("margin", "correlation", "discordance", "plan")}
    epochs = 1 if options.epochs is None else options.epochs
    if name in BUILT:
        return power_of(_counted(asked_suites(name, options.suites)), epochs=epochs, **more)
    return power(name, epochs=epochs, limit=options.limit, **more)


def evaluate(options: EvaluateOptions, progress: Progress | None = None) -> Evaluation:
    """Ask the candidate, and the baseline if there is one, and judge.

    Raises UndecidableError before the first request where no outcome could decide; UsageError, DataError.
    """
    progress = progress or Silent()
    asked = _asked(options)
    if "baseline" not in asked.who:
        if options.sequential:
            raise UsageError(said("{sequential} compares: wanted a {baseline}"))
        return _scored(answers(asked, _work(options, progress), progress))
    if not options.anyway:
        _check_decidable(asked.suites, options)
    work = _work(options, progress)
    found, at = _answered(asked, work, options, progress)
    assert found.baseline is not None
    judgement = judge(found.candidate, found.baseline, options.margin)
    if at is not None:
        judgement = _at_look(judgement, at)
    document = judgement.as_json() | _judge_errors(found, asked) | {"conditions": found.conditions, "log": str(work)}
    if at is not None:
        document["sequential"] = {"asked": at.units, "of": at.of, "decided": at.decided}
    judged = Judged(asked.name, document, *_covered(asked))
    records = write_records(work, judged, found.arms)
    folder = options.record or _own_folder(asked.who["candidate"])
    if folder is not None:
        record(folder, judged, records, progress)
    return Evaluation(judgement.verdict, judgement, document)


def judged_from(
    candidate: Path, baseline: Path, margin: float, cluster: str | None, into: Path | None, progress: Progress
) -> Evaluation:
    """`--from`, `--against`: answers that exist. into: checkpoint folder whose evidence gets the verdict."""
    arm = read_arm(candidate, cluster)
    found = judge(arm, read_arm(baseline, cluster), margin)
    more = {"harness": arm.harness, "conditions": arm.conditions, "log": str(candidate)}
    document = found.as_json() | more
    if into is not None:
        name = next(iter(arm.suites)) if len(arm.suites) == 1 else "+".join(sorted(arm.suites))
        record(into, Judged(name, document, tuple(sorted(arm.suites))), None, progress)
    return Evaluation(found.verdict, found, document)


def calibrated(options: EvaluateOptions, progress: Progress | None = None) -> tuple[Noise, dict[str, Any]]:
    """`--calibrate`: the baseline (or the candidate, if only that is given) against itself with other seeds."""
    progress = progress or Silent()
    if options.candidate is not None and options.baseline is not None:
        raise UsageError(said("{calibrate} asks one model: wanted {baseline} or {candidate}"))
    alone = replace(
        options,
        candidate=options.baseline or options.candidate,
        baseline=None,
        epochs=DEFAULT_RUNS if options.epochs is None else options.epochs,
    )
    if options.epochs is not None and options.epochs < DEFAULT_RUNS:
        raise UsageError(said("{epochs} {value}: {calibrate} wants at least 2", value=alone.epochs))
    asked = _asked(alone)
    found = answers(asked, work := _work(options, progress), progress)
    noises = noise(found.candidate, options.margin)
    return noises, noises.as_json() | {"conditions": found.conditions, "log": str(work)}


def _asked(options: EvaluateOptions) -> Asked:
    """Who is asked what. Raises UsageError for roles that are missing."""
    assert options.candidate is not None
    name = options.suite or DEFAULT_SUITE
    suites = asked_suites(name, options.suites)
    there = {} if options.work is None else earlier(options.work)
    known = [one for one in there.values() if isinstance(one, str)]
    wanted = frozenset[str]().union(*(suite.roles for suite in suites))
    roles = {}
    for role in sorted(wanted):
        text = getattr(options, role)
        if text is None:
            of = next(suite.name for suite in suites if role in suite.roles)
            raise UsageError(said(f"suite {{of}} needs {{{role}}} TARGET", of=of), hint=_ROLE_HINTS[role])
        roles[role] = chosen(text, options.key_env, known)
    texts = {"candidate": options.candidate, "baseline": options.baseline}
    who = {arm: chosen(text, options.key_env, known) for arm, text in texts.items() if text is not None}
    engine = Engine(options.context_length, options.gpu_layers, options.yes)
    return Asked(suites, who, roles, engine, Path(name).stem if name.endswith(".jsonl") else name)


_ROLE_HINTS = {
    "judge": "the model that grades answers; the same one for both arms, recorded",
    "user": "the model that plays the user; the same one for both arms, recorded",
}


def _work(options: EvaluateOptions, progress: Progress) -> Path:
    if options.work is not None:
        return options.work
    work = Path(tempfile.mkdtemp(prefix="halfbyte-evaluate-"))
    progress.note(f"logs: {work}")
    return work


def _counted(suites: Sequence[AskedSuite]) -> list[Suite]:
    """Of suites that are about to be asked, what `power` wants to know."""
    known = {suite.name: suite.accuracy for published in PUBLISHED.values() for suite in published}
    return [Suite(one.name, len(one.items), known.get(one.name, UNKNOWN_ACCURACY), one.name in known) for one in suites]


def _check_decidable(suites: Sequence[AskedSuite], options: EvaluateOptions) -> None:
    """Raise UndecidableError where no outcome of the run could decide."""
    found = power_of(
        _counted(suites),
        margin=options.margin,
        epochs=suites[0].sampling.epochs,
        correlation=options.correlation,
        discordance=options.discordance,
    )
    if not found.decidable:
        raise UndecidableError(
            f"a margin of {options.margin:g} points cannot be decided: {undecidable(found.suites)}",
            hint=said("more items or {epochs}, a wider {margin}; {anyway} asks nevertheless"),
        )


def _answered(asked: Asked, work: Path, options: EvaluateOptions, progress: Progress) -> tuple[Answers, Look | None]:
    if options.sequential:
        return sequentially(asked, work, options.margin, progress)
    return answers(asked, work, progress), None


def _at_look(found: Judgement, at: Look) -> Judgement:
    """Verdicts and intervals of the confidence sequence, which hold whenever one stops."""
    suites = tuple(_suite_at_look(suite, at) for suite in found.suites)
    pooled = {
        "difference": found.pooled["difference"],
        "interval": [100 * at.pooled.low, 100 * at.pooled.high],
        "verdict": at.verdict,
    }
    return Judgement(at.verdict, suites, pooled)


def _suite_at_look(suite: SuiteVerdict, at: Look) -> SuiteVerdict:
    several, alone = at.bounds[suite.name]
    margin = suite.margin / 100
    cut = suite.is_truncated
    return replace(
        suite,
        verdict="INCONCLUSIVE" if cut else several.outcome(margin),
        unadjusted="INCONCLUSIVE" if cut else alone.outcome(margin),
        interval=(100 * alone.low, 100 * alone.high),
    )


def _judge_errors(found: Answers, asked: Asked) -> dict[str, Any]:
    """How often judge gave no grade; nothing where there is none."""
    if "judge" not in asked.roles:
        return {}
    judged = {suite.name for suite in asked.suites if "judge" in suite.roles}
    errors = {}
    for arm, one in found.arms.items():
        samples = [sample for name in judged for sample in one.suites[name]]
        errors[arm] = sum(sample.judge_failed for sample in samples) / max(len(samples), 1)
    return {"judge": {"target": asked.roles["judge"].name, "error_rate": errors}}


def _covered(asked: Asked) -> tuple[tuple[str, ...], int]:
    """Names that the gate can ask for, and the longest context in tokens."""
    names = {suite.name for suite in asked.suites}
    if any(name in ("multilingual", "kmmlu") or name.startswith("long-recall") for name in names):
        names |= {"ko", "korean"}
    longest = max((int(suite.about.get("tokens", 0)) for suite in asked.suites), default=0)
    return tuple(sorted(names)), longest


def _own_folder(candidate: Chosen) -> Path | None:
    """The candidate's folder, if it has evidence."""
    path = candidate.path
    return path if path is not None and (path / DOSSIER).is_file() else None


def _scored(found: Answers) -> Evaluation:
    rows = scores(found.candidate)
    document = {"verdict": None, "suites": rows, "conditions": found.conditions, "log": str(found.log)}
    return Evaluation(None, None, document)
