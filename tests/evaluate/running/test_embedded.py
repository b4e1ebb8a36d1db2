"""A checkpoint folder as a target: llama.cpp for the run, started again at the same address where it dies."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from halfbyte.errors import HalfbyteError
from halfbyte.evaluate.running.chosen import chosen
from halfbyte.evaluate.running.embedded import Engine
from halfbyte.progress import Silent

from ..commands import halfbyte

pytest.importorskip("xllamacpp")
TINY = Path(__file__).parents[3] / "examples" / "tiny-glm"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("HALFBYTE_CACHE", str(folder))
        yield folder


def engines() -> list[int]:
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [int(pid) for pid, parent, words in rows if int(parent) == os.getpid() and "engine.child" in words]


def test_it_answers_dies_comes_back_and_ends() -> None:
    ask = {"messages": [{"role": "user", "content": "Compute 3+4."}], "max_tokens": 8}
    with chosen(str(TINY)).opened(Engine(context=512), Silent()) as target:
        url = f"{target.base_url}/chat/completions"
        assert httpx.post(url, json=ask, timeout=60).status_code == 200
        (pid,) = engines()
        os.kill(pid, signal.SIGKILL)
        for _ in range(400):
            try:
                if httpx.post(url, json=ask, timeout=60).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            raise AssertionError("it never came back")
    assert engines() == []


def test_a_suite_asked_of_a_folder_and_of_its_gguf(cache: Path, tmp_path: Path) -> None:
    suite = tmp_path / "s.jsonl"
    rows = [
        {"id": f"i{n}", "prompt": f"Compute {n}+4.", "reference": f"{n + 4}", "checker": "numeric"} for n in range(3)
    ]
    suite.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (gguf,) = (cache / "gguf").glob("*.gguf")
    words = ["evaluate", "--suite", suite, "--candidate", TINY, "--baseline", gguf]
    more = ["--margin", "90", "--anyway", "--max-tokens", "40", "--work", tmp_path / "work", "--json"]
    done = halfbyte(*words, *more)
    found = json.loads(done.stdout)
    row = found["suites"][0]
    assert (row["n"], row["difference"], row["failed"]) == (3, 0.0, {"candidate": 0, "baseline": 0})
    again = halfbyte(*words, *more)
    assert (again.returncode, json.loads(again.stdout)) == (done.returncode, found)
    assert "asked of" not in again.stderr


def test_what_llama_cpp_cannot_load_is_one_error(tmp_path: Path) -> None:
    (file := tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(HalfbyteError), chosen(str(file)).opened(Engine(), Silent()):
        pass
    assert engines() == []
