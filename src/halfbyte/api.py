"""Every command as a Python function, with the command's name and options.

from halfbyte.api import quantize
quantize("GLM-5.2", "glm-nvfp4")

A name is imported when it is first asked for: the core needs no torch, `calibrate` and its like do.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfbyte.checkpoint.names import is_store
from halfbyte.errors import OutputError

if TYPE_CHECKING:
    from halfbyte.calibrate.calibration import CalibrationResult, calibrate
    from halfbyte.checkpoint.inspect import Inspection, inspect
    from halfbyte.compare.comparison import Comparison, compare
    from halfbyte.convert.conversion import ConvertResult
    from halfbyte.convert.options import ConvertOptions
    from halfbyte.doctor.diagnosis import Diagnosis, doctor
    from halfbyte.evaluate.published import verdict
    from halfbyte.export import export
    from halfbyte.gate.judge import gate
    from halfbyte.plan.planner import plan
    from halfbyte.progress import Progress
    from halfbyte.quantize.options import QuantizeOptions
    from halfbyte.quantize.result import QuantizeResult
    from halfbyte.quantize.verify import Verification, verify
    from halfbyte.report.written import Report, report
    from halfbyte.search.best_recipe import SearchResult, search

__all__ = [
    "CalibrationResult",
    "Comparison",
    "ConvertResult",
    "Diagnosis",
    "Inspection",
    "QuantizeResult",
    "Report",
    "SearchResult",
    "Verification",
    "calibrate",
    "compare",
    "convert",
    "doctor",
    "export",
    "gate",
    "inspect",
    "plan",
    "quantize",
    "report",
    "search",
    "verdict",
    "verify",
]

_MODULES = {
    "CalibrationResult": "halfbyte.calibrate.calibration",
    "calibrate": "halfbyte.calibrate.calibration",
    "Inspection": "halfbyte.checkpoint.inspect",
    "inspect": "halfbyte.checkpoint.inspect",
    "Comparison": "halfbyte.compare.comparison",
    "compare": "halfbyte.compare.comparison",
    "ConvertResult": "halfbyte.convert.conversion",
    "Diagnosis": "halfbyte.doctor.diagnosis",
    "doctor": "halfbyte.doctor.diagnosis",
    "verdict": "halfbyte.evaluate.published",
    "export": "halfbyte.export",
    "gate": "halfbyte.gate.judge",
    "plan": "halfbyte.plan.planner",
    "QuantizeResult": "halfbyte.quantize.result",
    "Verification": "halfbyte.quantize.verify",
    "verify": "halfbyte.quantize.verify",
    "Report": "halfbyte.report.written",
    "report": "halfbyte.report.written",
    "SearchResult": "halfbyte.search.best_recipe",
    "search": "halfbyte.search.best_recipe",
}


def quantize(
    src: str | Path,
    dst: str | Path,
    options: "QuantizeOptions | None" = None,
    *,
    improve: bool = False,
    finish: bool = False,
    ray: str | None = None,
    lease_seconds: float = 60,
    progress: "Progress | None" = None,
    on_done: "Callable[[QuantizeResult], None] | None" = None,
    **given: Any,
) -> "QuantizeResult":
    """Quantize the checkpoint in folder `src` into folder `dst`; either may be a folder of an object store.

    given: fields of `quantize.options.QuantizeOptions` by name, instead of `options`. improve: `dst` holds a finished
    checkpoint of this source and recipe, whose experts are replaced by those that gptq rounds, shard by shard; all
    else of it stays, input scales that are not given too (`improve.shard_by_shard`). finish: `dst` holds the shards
    that `quantize.parts.quantize_part` wrote, which are checked and joined. ray: address of a cluster whose
    machines do a part each (`quantize.on_ray`); lease_seconds: see `quantize.part_options`.

    What is written is put before `gate` with the default policy, headers only: why it would refuse stands among the
    warnings of the result.
    """
    judged: list[QuantizeResult] = []

    def judge(result: "QuantizeResult") -> None:
        judged.append(_judged(result))
        if on_done is not None:
            on_done(judged[0])

    from halfbyte.quantize.options import QuantizeOptions as Options

    verb = _quantizer(str(dst), improve, finish, ray, lease_seconds)
    result = verb(src, dst, options or Options(**given), progress=progress, on_done=judge)
    return judged[0] if judged else result


def _quantizer(dst: str, improve: bool, finish: bool, ray: str | None, lease_seconds: float) -> Any:
    if ray is not None:
        return partial(
            import_module("halfbyte.quantize.on_ray").quantize_on_ray, address=ray, lease_seconds=lease_seconds
        )
    if improve:
        return import_module("halfbyte.improve.shard_by_shard").improve
    if finish:
        return import_module("halfbyte.quantize.finish").finish_parts
    if is_store(dst):
        return import_module("halfbyte.quantize.to_store").quantize_to_store
    return import_module("halfbyte.quantize.pipeline").quantize


def convert(
    src: str | Path,
    dst: str | Path,
    options: "ConvertOptions | None" = None,
    *,
    progress: "Progress | None" = None,
    **given: Any,
) -> "ConvertResult":
    """Write the NVFP4 checkpoint of folder `src` into folder `dst` in the other layout, hold it against its source and
    put it before `gate` with the default policy: why it would refuse stands among the warnings of the result.

    given: fields of `convert.options.ConvertOptions` by name, instead of `options`. Raises OutputError if what was
    written does not read as the source does.
    """
    from halfbyte.convert.conversion import convert as verb
    from halfbyte.quantize.verify import verify

    result = verb(src, dst, options, progress=progress, **given)
    found = verify(src, dst, follow_links=True)
    if not found.ok:
        first = found.mismatches[0]
        raise OutputError(
            f"{dst}: does not read as its source: {first.tensor}: {first.reason}", hint="do not use it; check the disk"
        )
    return replace(result, warnings=[*result.warnings, *_refusals(result.output)])


def _judged(result: "QuantizeResult") -> "QuantizeResult":
    return replace(result, warnings=[*result.warnings, *_refusals(result.output)])


def _refusals(folder: str) -> list[str]:
    from halfbyte.gate.apart import refusals

    return [f"gate refuses this checkpoint by its default policy: {reason}" for reason in refusals(folder)]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
