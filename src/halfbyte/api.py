"""Every command as a Python function, with the command's name and options.

from halfbyte.api import quantize
quantize("GLM-5.2", "glm-nvfp4")

A name is imported when it is first asked for: the core needs no torch, `calibrate` and its like do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from halfbyte.calibrate.calibration import CalibrationResult, calibrate
    from halfbyte.checkpoint.inspect import Inspection, inspect
    from halfbyte.compare import Comparison, compare
    from halfbyte.evaluate.published import verdict
    from halfbyte.export import export
    from halfbyte.gate.judge import gate
    from halfbyte.plan.planner import plan
    from halfbyte.quantize.pipeline import quantize
    from halfbyte.quantize.result import QuantizeResult
    from halfbyte.quantize.verify import Verification, verify
    from halfbyte.search import SearchResult, search

__all__ = [
    "CalibrationResult",
    "Comparison",
    "Inspection",
    "QuantizeResult",
    "SearchResult",
    "Verification",
    "calibrate",
    "compare",
    "export",
    "gate",
    "inspect",
    "plan",
    "quantize",
    "search",
    "verdict",
    "verify",
]

_MODULES = {
    "CalibrationResult": "halfbyte.calibrate.calibration",
    "calibrate": "halfbyte.calibrate.calibration",
    "Inspection": "halfbyte.checkpoint.inspect",
    "inspect": "halfbyte.checkpoint.inspect",
    "Comparison": "halfbyte.compare",
    "compare": "halfbyte.compare",
    "verdict": "halfbyte.evaluate.published",
    "export": "halfbyte.export",
    "gate": "halfbyte.gate.judge",
    "plan": "halfbyte.plan.planner",
    "QuantizeResult": "halfbyte.quantize.result",
    "quantize": "halfbyte.quantize.pipeline",
    "Verification": "halfbyte.quantize.verify",
    "verify": "halfbyte.quantize.verify",
    "SearchResult": "halfbyte.search",
    "search": "halfbyte.search",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
