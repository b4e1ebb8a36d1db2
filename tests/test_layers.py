"""The floors of the house: imports go down one list, in no circle, and what is known about the outside stands once.

`FLOORS` is that list; CONTRIBUTING and README print it.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import halfbyte

FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("api",),
    ("deploy",),
    ("evaluate", "serve", "report", "doctor"),
    ("gate", "search", "compare", "improve"),
    ("plan", "quantize", "convert", "calibrate", "export", "chat"),
    ("stream", "runtime"),
    ("modules",),
    ("evidence", "recipes", "data", "plots"),
    ("engines",),
    ("checkpoint",),
    ("models",),
    ("formats",),
    ("numbers",),
    ("disk",),
    ("cluster",),
    ("errors", "progress", "process", "validation"),
    ("text",),
)

DOORS: dict[str, tuple[str, ...]] = {
    "search": ("compare",),
    "quantize": ("calibrate",),
    "chat": ("export",),
    "convert": ("quantize",),
    "evaluate": ("serve",),
}
"""Package -> those of its own floor that it may call."""

ROOT = Path(halfbyte.__file__).parent
REPOSITORY = Path(__file__).parent.parent
FLOOR = {package: number for number, packages in enumerate(FLOORS) for package in packages}


@cache
def modules() -> dict[str, Path]:
    """Dotted name below `halfbyte` -> file."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        pieces = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(pieces[:-1] if pieces[-1] == "__init__" else pieces)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text("utf-8"))


def imports(name: str) -> Iterator[str]:
    """Modules of ours that a module imports: at its top, in functions, and for the type checker alone."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "halfbyte":
            base = node.module.partition(".")[2]
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                yield inner if inner in modules() else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "halfbyte":
                    yield alias.name.partition(".")[2]


def package(name: str) -> str:
    return name.partition(".")[0]


def test_every_package_has_a_floor() -> None:
    assert {package(name) for name in modules() if name} == set(FLOOR)


def test_imports_only_go_down() -> None:
    upward = []
    for name in modules():
        for target in imports(name):
            mine, other = package(name), package(target)
            if not name or not target or mine == other or other in DOORS.get(mine, ()):
                continue  # `halfbyte` itself holds the version
            if FLOOR[other] <= FLOOR[mine]:
                upward.append(f"{name} imports {target}")
    assert upward == []


def test_no_circle_of_any_size() -> None:
    assert [sorted(circle) for circle in circles({name: set(imports(name)) for name in modules()})] == []


def test_a_circle_is_found() -> None:
    assert sorted(map(sorted, circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"e"}}))) == [
        ["a", "b", "c"],
        ["e"],
    ]


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of more than one module, and modules that import themselves."""
    reached = {name: reach(graph, name) for name in graph}
    found: list[set[str]] = []
    for name in graph:
        circle = {other for other in reached[name] if name in reached.get(other, ())}
        if circle and circle not in found:
            found.append(circle)
    return found


def reach(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), ()):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def literals(name: str) -> Iterator[tuple[int, str]]:
    """String literals of a module but for docstrings and the words of messages: a literal counts if it is one word."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def outside(floors: tuple[str, ...], words: set[str]) -> list[str]:
    """Where one of the words stands as a literal outside the packages that may know it."""
    return [
        f"{name}:{line} {word!r}"
        for name in modules()
        if package(name) not in floors
        for line, word in literals(name)
        if word in words
    ]


def test_no_model_type_stands_outside_models() -> None:
    from halfbyte.models import FAMILIES

    assert len(FAMILIES) > 5
    # an engine's faults name files of that engine, which it calls after model types
    assert outside(("models", "engines"), set(FAMILIES)) == []


def test_no_engine_stands_outside_engines() -> None:
    from halfbyte.engines.catalogue import ENGINES

    assert outside(("engines", "models"), set(ENGINES)) == []


def test_no_stored_dtype_stands_outside_formats() -> None:
    words = {"U8", "F8_E4M3", "F8_E8M0", "weight_scale_inv"}
    assert outside(("formats",), words) == []


CORE = (
    "errors",
    "progress",
    "process",
    "validation",
    "numbers",
    "formats",
    "models",
    "checkpoint",
    "engines",
    "evidence",
    "recipes",
)
CORE_VERBS = ("quantize", "gate", "plan", "report", "doctor", "cli", "api")
NEEDS_TORCH = ("formats.nvfp4.torch", "formats.torch_dtypes", "quantize.rounding", "quantize.calibrated")

IMPORT_WITHOUT_TORCH = """
import importlib, sys
sys.modules["torch"] = None
for name in sys.argv[1:]:
    importlib.import_module("halfbyte." + name)
"""


def test_the_core_imports_without_torch() -> None:
    core = [name for name in modules() if package(name) in CORE + CORE_VERBS and not name.startswith(NEEDS_TORCH)]
    assert len(core) > 100
    subprocess.run([sys.executable, "-c", IMPORT_WITHOUT_TORCH, *core], check=True, timeout=120)


IMPORT_ALL = """
import importlib, sys
from transformers.quantizers import auto
before = dict(auto.AUTO_QUANTIZER_MAPPING), dict(auto.AUTO_QUANTIZATION_CONFIG_MAPPING)
for name in sys.argv[1:]:
    importlib.import_module("halfbyte." + name)
assert before == (dict(auto.AUTO_QUANTIZER_MAPPING), dict(auto.AUTO_QUANTIZATION_CONFIG_MAPPING)), "changed"
import halfbyte.runtime
assert before != (dict(auto.AUTO_QUANTIZER_MAPPING), dict(auto.AUTO_QUANTIZATION_CONFIG_MAPPING)), "not registered"
"""


def test_only_the_runtime_registers_anything() -> None:
    pytest.importorskip("transformers")
    quiet = [name for name in modules() if name and package(name) not in ("runtime", "__main__") and "cuda" not in name]
    subprocess.run([sys.executable, "-c", IMPORT_ALL, *quiet], check=True, timeout=120)


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "README.md"])
def test_the_documents_print_this_list(document: str) -> None:
    text = (REPOSITORY / document).read_text("utf-8")
    lines = ["    " + "  ".join(packages) for packages in FLOORS[1:]]
    assert "\n".join(lines) in text
