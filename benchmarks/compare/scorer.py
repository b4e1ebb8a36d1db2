"""The lab animals' own scorer, by its file: `evaluate` is also what others call a package of theirs."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.table import ROOT


def _loaded(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_glm_scorer", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_scorer = _loaded(ROOT / "examples/tiny-glm/evaluate.py")
correct: Callable[[str, dict[str, Any]], bool] = _scorer.correct
run_task: Callable[[Any, Any, list[dict[str, Any]], int], tuple[float, list[dict[str, Any]]]] = _scorer.run_task
