"""Benchmarks run seldom: what they take from the package is there."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))
CUDA = "halfbyte.runtime.backends"
"""Its modules need libraries that only a machine with a GPU has."""


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_what_a_benchmark_imports_of_the_package_is_there(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("halfbyte"):
            continue
        assert node.module is not None
        assert importlib.util.find_spec(node.module) is not None
        if node.module.startswith(CUDA):
            continue
        module = importlib.import_module(node.module)
        for name in node.names:
            inner = f"{node.module}.{name.name}"
            assert hasattr(module, name.name) or importlib.util.find_spec(inner) is not None, inner
