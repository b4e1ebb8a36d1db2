"""A folder of answers, whoever left them: `read_arm` finds out."""

from pathlib import Path
from types import ModuleType

from halfbyte.errors import DataError
from halfbyte.evaluate.harnesses import evalscope, inspect_logs, lm_eval, nemo
from halfbyte.evaluate.harnesses.records import Run
from halfbyte.evaluate.samples import Arm

HARNESSES: tuple[ModuleType, ...] = (inspect_logs, lm_eval, evalscope, nemo)
WANTED = (
    "wanted inspect logs (.eval, .json), lm-eval's samples_*.jsonl with results_*.json, EvalScope's reviews/ and "
    "predictions/, or NeMo Evaluator's results.jsonl with eval-*.json"
)


def read_arm(folder: Path, cluster: str | None = None) -> Arm:
    """One model's answers below `folder`. cluster: the metadata field that items share a source by.

    Raises DataError: no answers, several harnesses or models, one suite run twice, a file at fault.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", hint=WANTED)
    here = [harness for harness in HARNESSES if harness.is_here(folder)]
    if len(here) != 1:
        names = " and ".join(harness.NAME for harness in here)
        raise DataError(f"{folder}: holds answers of {names}" if here else f"{folder}: holds no answers", hint=WANTED)
    arm = Arm(here[0].NAME)
    first: dict[str, Run] = {}
    for run in here[0].runs(folder, cluster):
        if run.suite in first:
            raise DataError(
                f"{folder}: suite {run.suite!r} was run twice: {first[run.suite].source} and {run.source}",
                hint="give a folder with one run",
            )
        other = next((one for one in first.values() if one.model != run.model), None)
        if other is not None:
            raise DataError(
                f"{folder}: holds answers of two models: {other.model!r} and {run.model!r}",
                hint="give one model's folder",
            )
        if not run.samples:
            raise DataError(f"{run.source}: holds no answers")
        first[run.suite] = run
        arm.suites[run.suite] = run.samples
        arm.conditions[run.suite] = run.conditions
    return arm
