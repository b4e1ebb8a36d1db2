"""A real run: candidate and baseline asked the same items, their logs kept and resumed in one work folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from halfbyte.disk import is_missing, read_regular
from halfbyte.errors import DataError, OutputError, said
from halfbyte.evaluate.harnesses.inspect_logs import runs
from halfbyte.evaluate.running.asking import MOST_FAILED, ask, is_finished, needs_inspect
from halfbyte.evaluate.running.chosen import Chosen
from halfbyte.evaluate.running.embedded import Engine
from halfbyte.evaluate.running.suite import AskedSuite
from halfbyte.evaluate.running.targets import Target
from halfbyte.evaluate.samples import Arm, Sample
from halfbyte.progress import Progress
from halfbyte.text import json_of

ARMS = ("candidate", "baseline")
_RUN_FILE = "run.json"
_RUN_FILE_LIMIT_BYTES = 1_000_000


@dataclass(frozen=True)
class Asked:
    """Who is asked what. who: by arm, `baseline` if there is one. roles: judge and user simulator."""

    suites: tuple[AskedSuite, ...]
    who: Mapping[str, Chosen]
    roles: Mapping[str, Chosen] = field(default_factory=dict)
    engine: Engine = field(default_factory=Engine)
    name: str = ""

    def conditions(self) -> dict[str, Any]:
        """What makes two runs one: written into the work folder, and into the report."""
        return {
            "suite": self.name,
            **{arm: self.who[arm].name if arm in self.who else None for arm in ARMS},
            **{role: one.name for role, one in self.roles.items()},
            "suites": {
                one.name: {
                    "items": len(one.items),
                    "items_sha256": one.sha256,
                    **asdict(one.sampling),
                    **({"about": one.about} if one.about else {}),
                }
                for one in self.suites
            },
        }


@dataclass(frozen=True)
class Answers:
    """What the arms said. conditions: what was asked of whom and how. log: the work folder."""

    arms: Mapping[str, Arm]
    conditions: dict[str, Any]
    log: Path

    @property
    def candidate(self) -> Arm:
        return self.arms["candidate"]

    @property
    def baseline(self) -> Arm | None:
        return self.arms.get("baseline")


def answers(asked: Asked, work: Path, progress: Progress) -> Answers:
    """Ask what is not answered yet, one arm after the other.

    Raises DataError; OutputError for a work folder of another run.
    """
    needs_inspect()
    conditions = asked.conditions()
    claim(work, conditions)
    for arm in asked.who:
        open_suites = [suite for suite in asked.suites if not is_finished(work / arm / suite.name)]
        if open_suites:
            with opened(asked, [arm], progress) as targets:
                for suite in open_suites:
                    ask(
                        suite,
                        suite.items,
                        targets[arm],
                        _roles(suite, targets),
                        work / arm / suite.name,
                        progress,
                    )
    arms = {arm: read(asked, work, arm, [""]) for arm in asked.who}
    check_judge(arms)
    return Answers(arms, conditions, work)


@contextmanager
def opened(asked: Asked, names: Sequence[str], progress: Progress) -> Iterator[dict[str, Target]]:
    """Arms and roles, each served while it is asked."""
    with ExitStack() as stack:
        everybody = {name: asked.who[name] for name in names} | dict(asked.roles)
        yield {name: stack.enter_context(one.opened(asked.engine, progress)) for name, one in everybody.items()}


def _roles(suite: AskedSuite, targets: Mapping[str, Target]) -> dict[str, Target]:
    return {role: targets[role] for role in sorted(suite.roles)}


def ask_batch(
    asked: Asked, suite: AskedSuite, items: Sequence[dict[str, Any]], where: Mapping[str, Target], logs: Path, arm: str,
    progress: Progress,
) -> None:  # fmt: skip
    """Some items of one arm, into a log folder of their own."""
    if items and not is_finished(logs):
        ask(suite, items, where[arm], _roles(suite, where), logs, progress)


def read(asked: Asked, work: Path, arm: str, batches: Sequence[str]) -> Arm:
    """One arm's answers, of all batches together."""
    found = Arm("inspect")
    for suite in asked.suites:
        cluster = "cluster" if any(item.get("cluster") is not None for item in suite.items) else None
        samples: list[Sample] = []
        for batch in batches:
            folder = work / arm / suite.name / batch
            if folder.is_dir():
                for run in runs(folder, cluster):
                    samples += run.samples
        found.suites[suite.name] = samples
        found.conditions[suite.name] = {"items_sha256": suite.sha256, **asdict(suite.sampling)}
    return found


def check_judge(arms: Mapping[str, Arm]) -> None:
    """Raise DataError where the judge failed too often to be only unlucky."""
    for arm, one in arms.items():
        for name, samples in one.suites.items():
            lost = sum(sample.judge_failed for sample in samples)
            if lost > MOST_FAILED * len(samples):
                raise DataError(
                    f"suite {name!r}: the judge gave no grade for {lost} of {len(samples)} answers of the {arm}",
                    hint=said("choose another {judge}, and a {work} folder of its own"),
                )


def earlier(work: Path) -> dict[str, Any]:
    """What the run in a work folder is; empty if there is none. Raises OutputError."""
    path = work / _RUN_FILE
    if is_missing(path):
        return {}
    try:
        there = json_of(read_regular(path, _RUN_FILE_LIMIT_BYTES, OutputError))
    except ValueError:
        there = None
    if not isinstance(there, dict):
        raise OutputError(f"{path}: damaged", hint="choose another work folder")
    return there


def claim(work: Path, conditions: dict[str, Any]) -> None:
    """Write what this run is, or find that it is the one that is there."""
    there = earlier(work)
    if not there:
        try:
            work.mkdir(parents=True, exist_ok=True)
            (work / f"{_RUN_FILE}.new").write_text(json.dumps(conditions, indent=2), "utf-8")
            (work / f"{_RUN_FILE}.new").replace(work / _RUN_FILE)
        except OSError as error:
            raise OutputError(f"{work}: {error.strerror}") from None
        return
    for key, ours, theirs in _differences(conditions, there):
        raise OutputError(
            f"{work}: holds another run: its {key} is {theirs!r}, wanted {ours!r}",
            hint="choose a work folder of its own",
        )


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, ours, theirs) of what is not equal, at whatever depth."""
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key), theirs.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other)
        elif one != other:
            yield key, one, other


def scores(arm: Arm) -> Sequence[dict[str, Any]]:
    """By suite, of an arm without a baseline: n items scored, the mean in percent, states."""
    rows = []
    for name, samples in arm.suites.items():
        means: dict[str, list[float]] = {}
        for sample in samples:
            if sample.score is not None:
                means.setdefault(sample.key, []).append(sample.score)
        mean = sum(sum(found) / len(found) for found in means.values()) / len(means) if means else None
        rows.append(
            {
                "name": name,
                "verdict": None,
                "n": len(means),
                "candidate": None if mean is None else 100 * mean,
                "baseline": None,
                "difference": None,
                "interval": None,
                "margin": None,
                "truncated": {"candidate": sum(sample.truncated for sample in samples), "baseline": None},
                "failed": {"candidate": sum(sample.state == "failed" for sample in samples), "baseline": None},
            }
        )
    return rows
