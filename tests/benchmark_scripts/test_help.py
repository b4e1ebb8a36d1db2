"""Benchmarks run seldom: each is imported here and asked for its --help, so that it starts when it is wanted."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # half a minute of one core where nothing is compiled yet; test_imports.py is not
ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "benchmarks").rglob("*.py") if path.name != "__init__.py")
ELSEWHERE = {
    "benchmarks/peers/choose_modelopt.py": "modelopt",
    "benchmarks/peers/encode_compressed_tensors.py": "compressed_tensors",
    "benchmarks/peers/encode_modelopt.py": "modelopt",
    "benchmarks/peers/quantize_modelopt.py": "modelopt",
    "benchmarks/peers/round_llmcompressor.py": "llmcompressor",
    "benchmarks/peers/round_modelopt.py": "modelopt",
}
"""Scripts that run in a peer's own environment (`make .venv-peers/ready`), by the package that is there alone."""
HERE = [file for file in FILES if importlib.util.find_spec(ELSEWHERE.get(str(file), "halfbyte")) is not None]

SECONDS = 30
"""One script may take so long, on a machine that does other work too; idle, it takes less than one second."""
SERVER = f"""
import gc, json, os, runpy, signal, sys, tempfile, traceback
import numba, numpy, scipy.stats, torch, transformers.modeling_utils
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
import halfbyte.checkpoint.source, halfbyte.formats.catalogue, halfbyte.models, halfbyte.quantize.linears

gc.freeze()

def answer(module):
    signal.alarm({SECONDS})
    try:
        sys.argv = [module, "--help"]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

for module in map(str.strip, sys.stdin):
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            code = answer(module)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        print(json.dumps([module, code, said.read()]), flush=True)
"""
"""Imports once what takes long, then runs every module in a fork of its own. `halfbyte.runtime` is left to the scripts:
one puts something else in its place."""


def module_of(file: Path) -> str:
    return ".".join(file.with_suffix("").parts)


def runs(file: Path) -> bool:
    """Whether it is a script and not what scripts import."""
    return "__main__" in (ROOT / file).read_text("utf-8")


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, str]]:
    """Module -> exit code and what was said, from the repository's root, as benchmarks/README.md says."""
    done = subprocess.run(
        [sys.executable, "-c", SERVER],
        input="".join(f"{module_of(file)}\n" for file in HERE),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    rows: list[list[Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    return {module: (code, said) for module, code, said in rows}


@pytest.mark.parametrize("file", HERE, ids=module_of)
def test_it_answers_help(file: Path, answers: dict[str, tuple[int, str]]) -> None:
    code, said = answers[module_of(file)]
    assert code == 0, said
    assert ("usage: " in said) == runs(file), said


def test_what_runs_elsewhere_is_there() -> None:
    assert set(ELSEWHERE) <= set(map(str, FILES))
