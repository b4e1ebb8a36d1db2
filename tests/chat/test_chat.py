"""`halfbyte chat` on the quantized tiny model, through the real engines."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from halfbyte.api import quantize
from halfbyte.chat import gguf_cache
from halfbyte.chat.engine import choose
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.tokenizer import load_tokenizer
from halfbyte.errors import CheckpointError, OutputError, UnsupportedError, UsageError
from halfbyte.progress import Silent

TINY = Path(__file__).parents[2] / "examples/tiny-glm"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quantize(TINY, tmp_path_factory.mktemp("chat") / "tiny")
    return tmp_path_factory.getbasetemp() / "chat0/tiny"


def chat(output: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HALFBYTE_CACHE": str(output.parent / "cache")}
    command = [sys.executable, "-m", "halfbyte", "chat", str(output), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, input="")


def test_llamacpp_answers_with_reasoning_and_figures(output: Path) -> None:
    done = chat(output, "--messages", TINY / "tasks/reasoning.jsonl", "--engine", "llama.cpp")
    assert done.returncode == 0, done.stderr
    first = json.loads((TINY / "tasks/reasoning.jsonl").read_text().splitlines()[0])
    reasoning, _, content = done.stdout.strip().rpartition("\n")
    assert content == first["answer"]
    assert reasoning.startswith("[")
    assert "tokens/s" in done.stderr
    assert "first token after" in done.stderr
    assert str(output.parent / "cache") in done.stderr


@pytest.mark.parametrize("engine", ["llama.cpp", "transformers"])
def test_both_engines_give_the_same_tool_call(output: Path, engine: str) -> None:
    done = chat(output, "--messages", TINY / "tasks/tool_use.jsonl", "--engine", engine, "--json", "--max-tokens", "60")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["engine"].startswith(engine)
    (call,) = answer["tool_calls"]
    assert (call["name"], json.loads(call["arguments"])) == ("order_car", {"code": "HN-6183"})
    assert answer["finish_reason"] == "tool_calls"
    assert answer["completion_tokens"] > 5
    assert answer["ttft_ms"] > 0


def test_the_gguf_is_made_once_and_again_for_other_content(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFBYTE_CACHE", str(output.parent / "again"))
    first = gguf_cache.cached_gguf(output, Silent(), lambda _: False)
    written = first.stat().st_mtime_ns
    assert gguf_cache.cached_gguf(output, Silent(), lambda _: False) == first
    assert first.stat().st_mtime_ns == written
    with Checkpoint.open(output) as ours, Checkpoint.open(TINY) as source:
        assert gguf_cache.fingerprint(ours) != gguf_cache.fingerprint(source)


def test_a_large_gguf_is_made_only_after_asking(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFBYTE_CACHE", str(output.parent / "large"))
    monkeypatch.setattr(gguf_cache, "LARGE_BYTES", 1000)
    questions: list[str] = []

    def refuse(question: str) -> bool:
        questions.append(question)
        return False

    with pytest.raises(OutputError, match="GGUF of about"):
        gguf_cache.cached_gguf(output, Silent(), refuse)
    assert len(questions) == 1
    assert not (output.parent / "large").exists()
    assert gguf_cache.cached_gguf(output, Silent(), lambda _: True).exists()


def test_missing_engines_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for name in ("llama.cpp", "transformers", "auto"):
        with pytest.raises(UnsupportedError) as caught:
            choose(name)
        assert "pip install 'halfbyte[" in (caught.value.hint or "")
    with pytest.raises(UsageError):
        choose("abacus")


@pytest.mark.parametrize(
    "arguments", [["--prompt", "a", "--messages", "b"], ["--messages", "nowhere.json"], [], ["--engine", "abacus"]]
)
def test_wrong_usage_exits_2(output: Path, arguments: list[str]) -> None:
    done = chat(output, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_no_checkpoint_is_one_error(tmp_path: Path) -> None:
    done = chat(tmp_path, "--prompt", "hello")
    assert done.returncode == 1
    assert "config.json" in done.stderr


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.json"])
def test_a_file_that_no_tokenizer_has_so_large_is_not_read(output: Path, tmp_path: Path, name: str) -> None:
    """A sparse file of a terabyte in its place."""
    shutil.copytree(output, tmp_path / "copy")
    with open(tmp_path / "copy" / name, "ab") as file:
        file.truncate(10**12)
    with pytest.raises(CheckpointError, match=r"1,?000,?000,?000,?000"):
        load_tokenizer(tmp_path / "copy")
