"""Suite `glm-5.2`: the five benchmarks of the published card at its conditions.

GPQA diamond, SciCode and tau2 telecom are inspect-evals' own tasks; IFBench and AA-LCR are ours over the user's copies.
Nothing is downloaded here: what inspect-evals would fetch is taken from `--data`, put where it looks for it, and its
checksum compared; what is missing is named all at once.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfbyte.errors import DataError, UnsupportedError, UsageError, said
from halfbyte.evaluate.running import aa_lcr, ifbench
from halfbyte.evaluate.running.suite import AskedSuite, Sampling

if TYPE_CHECKING:
    from inspect_ai import Task

TEMPERATURE, TOP_P, EPOCHS = 1.0, 0.95, 8
"""Of the card; its means fit eight runs of each item."""
GPQA_TOKENS, OTHER_TOKENS = 100_000, 64_000
SANDBOXES = ("docker", "local")
LCR, IFBENCH = "AA-LCR", "IFBench"


@dataclass(frozen=True)
class Given:
    """A file that a benchmark wants. name: below `--data`. sha256: as published, None where only recorded.

    cached: where inspect-evals looks for it.
    """

    name: str
    sha256: str | None = None
    cached: Path | None = None


def glm_suites(data: Path | None, sandbox: str) -> list[AskedSuite]:
    """All five. Raises UsageError, UnsupportedError, DataError listing every file that is missing or another."""
    if sandbox not in SANDBOXES:
        raise UsageError(said("{sandbox} {value!r}: wanted docker or local", value=sandbox[:40]))
    given = _wanted()
    problems = list(_problems(given, data))
    if problems:
        raise DataError(
            f"suite glm-5.2: {len(problems)} of {len(given)} files are missing: {'; '.join(problems)}",
            hint=said("bring them into one folder, and name it by {data}; pip install 'halfbyte[benchmarks]' too"),
        )
    if find_spec("inspect_evals") is None:
        raise UnsupportedError("suite glm-5.2 needs inspect-evals", hint="pip install 'halfbyte[benchmarks]'")
    assert data is not None
    return list(_suites(given, data, sandbox))


def _wanted() -> list[Given]:
    """All files, with the checksums and places that inspect-evals has for its own, where it is installed."""
    own = [Given(name) for name in ("gpqa_diamond.csv", "scicode/problems_all.jsonl", "scicode/test_data.h5")]
    if find_spec("inspect_evals") is not None:
        from inspect_evals.gpqa import gpqa
        from inspect_evals.scicode import dataset as scicode

        problems = scicode.CACHE_DIR / "problems_all.jsonl"
        own = [
            Given(own[0].name, gpqa.GPQA_DIAMOND_DATASET_SHA256, gpqa.GPQA_DIAMOND_CACHE_PATH),
            Given(own[1].name, scicode.CHECKSUMS["problems_all"], problems),
            Given(own[2].name, scicode.TEST_DATA_SHA256, scicode.TEST_DATA_PATH),
        ]
    return [
        *own,
        Given(f"{IFBENCH}/{ifbench.PROMPTS}", ifbench.PROMPTS_SHA256),
        Given(f"{IFBENCH}/{ifbench.CODE}"),
        Given(f"{LCR}/{aa_lcr.QUESTIONS}"),
        Given(f"{LCR}/{aa_lcr.TEXTS}"),
    ]


def _problems(given: list[Given], data: Path | None) -> Iterator[str]:
    for one in given:
        path = None if data is None else data / one.name
        if path is not None and path.exists():
            found = _sha256(path) if one.sha256 is not None else None
            if found != one.sha256:
                yield f"{one.name} (SHA-256 {found}, wanted {one.sha256})"
        elif one.cached is None or one.sha256 is None or not one.cached.is_file() or _sha256(one.cached) != one.sha256:
            yield one.name + ("" if one.sha256 is None else f" (SHA-256 {one.sha256})")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _suites(given: list[Given], data: Path, sandbox: str) -> Iterator[AskedSuite]:
    others = Sampling(TEMPERATURE, TOP_P, OTHER_TOKENS, EPOCHS)
    evals = {"inspect_evals": version("inspect-evals")}

    def of_inspect(
        name: str, task: "Callable[[], Task]", sampling: Sampling, roles: frozenset[str] = frozenset(), **about: Any
    ) -> AskedSuite:
        ids = tuple({"id": str(sample.id)} for sample in task().dataset)
        return AskedSuite(name, ids, sampling, task, evals | about, roles=roles)

    yield of_inspect(
        "gpqa-diamond",
        lambda: _gpqa(given, data),
        Sampling(TEMPERATURE, TOP_P, GPQA_TOKENS, EPOCHS),
        sha256=given[0].sha256,
    )
    yield of_inspect(
        "scicode",
        lambda: _scicode(given, data, sandbox),
        others,
        sandbox=sandbox,
        sha256=[given[1].sha256, given[2].sha256],
    )
    clone = data / IFBENCH
    hashes = {name: _sha256(clone / name) for name in (ifbench.PROMPTS, ifbench.CODE)}
    yield AskedSuite("ifbench", tuple(ifbench.read_prompts(clone)), others, about={"sha256": hashes}, data=clone)
    items, hashes = aa_lcr.read_questions(data / LCR)
    yield AskedSuite("aa-lcr", tuple(items), others, about={"sha256": hashes}, roles=frozenset({"judge"}))
    yield of_inspect("tau2-telecom", _tau2, others, roles=frozenset({"user"}))


def _in_place(one: Given, data: Path) -> None:
    """Put a given file where inspect-evals looks for it; it changes one of them after reading, so each time."""
    if one.cached is not None and (data / one.name).is_file():
        one.cached.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / one.name, one.cached)


def _gpqa(given: list[Given], data: Path) -> "Task":
    from inspect_evals.gpqa import gpqa_diamond

    _in_place(given[0], data)
    task: Task = gpqa_diamond()
    return task


def _scicode(given: list[Given], data: Path, sandbox: str) -> "Task":
    from inspect_ai import task_with
    from inspect_evals.scicode import scicode

    for one in given[1:3]:
        _in_place(one, data)
    task: Task = scicode()
    if sandbox == "docker":
        return task
    import inspect_evals.scicode as package

    beside = Path(package.__file__).parent  # what its Dockerfile copies
    for sample in task.dataset:
        sample.files = (sample.files or {}) | {name: str(beside / name) for name in ("test_util.py", "process_data.py")}
    return task_with(task, sandbox="local")


def _tau2() -> "Task":
    from inspect_evals.tau2 import tau2_telecom

    task: Task = tau2_telecom(shuffle=False)
    return task
