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


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_what_a_benchmark_imports_of_another_is_there(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks."):
            assert node.module is not None
            other = ROOT / Path(*node.module.split(".")).with_suffix(".py")
            assert {name.name for name in node.names} <= _defined(ast.parse(other.read_text("utf-8")))


def _defined(module: ast.Module) -> set[str]:
    """What stands at the top of a module, imports included."""
    found: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(name.asname or name.name).partition(".")[0] for name in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
    return found


def test_benchmarks_lie_in_a_folder_of_their_verb() -> None:
    assert {path.name for path in (ROOT / "benchmarks").glob("*.py")} == {"__init__.py", "table.py"}
