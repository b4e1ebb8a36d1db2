"""`serve --engine`: commands made from checkpoint, plan and machine, the reasons why not, and a launched engine."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from families.configs import config
from typer.testing import CliRunner

from halfbyte.cli.main import app
from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.recorded import recorded_flags
from serve.doors import add_tenant, door, halfbyte, usage

CARD = [
    *("--tensor-parallel-size", "8", "--quantization", "modelopt_fp4"),
    *("--tool-call-parser", "glm47", "--reasoning-parser", "glm45", "--trust-remote-code"),
    *("--chunked-prefill-size", "131072", "--mem-fraction-static", "0.80"),
]
BLOCK = {
    "quant_method": "modelopt",
    "quant_algo": "NVFP4",
    "group_size": 16,
    "ignore": ["lm_head", "*self_attn*", "*shared_experts*", "model.layers.0*"],
}


@pytest.fixture(scope="module")
def glm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GLM-5.2-NVFP4 on paper."""
    folder = tmp_path_factory.mktemp("models") / "GLM-5.2-NVFP4"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config("GLM-5.2") | {"quantization_config": BLOCK}))
    return folder


def command(target: Path, *options: str) -> dict[str, Any]:
    said = CliRunner().invoke(app, ["serve", str(target), *options, "--print", "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert set(found) == {"command", "env", "notes"}
    return dict(found)


def test_the_cards_command_flag_for_flag(glm: Path) -> None:
    for machine in ("b200x8", "b300x8", "gb200x8"):
        found = command(glm, "--engine", "sglang", "--hardware", machine, "--preset", "card")
        assert found["command"] == ["python3", "-m", "sglang.launch_server", "--model", str(glm), *CARD]


def test_the_plans_own_flags_say_why_they_differ(glm: Path) -> None:
    found = command(glm, "--engine", "sglang", "--hardware", "b200x8")
    words = found["command"]
    assert words[words.index("--tp-size") + 1] == "8"
    assert words[words.index("--context-length") + 1] == "1048576"
    assert "--disable-shared-experts-fusion" not in words
    for flag in ("--quantization", "--chunked-prefill-size", "--mem-fraction-static", "--trust-remote-code"):
        assert any(note.startswith(f"card: {flag}") for note in found["notes"]), flag


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("machine", ["b200x8", "h200x8", "rtxpro6000x8"])
@pytest.mark.parametrize("more", [(), ("--mtp", "3"), ("--context-length", "128k", "--kv-dtype", "fp8")])
def test_every_flag_is_one_that_the_engine_takes(glm: Path, engine: str, machine: str, more: tuple[str, ...]) -> None:
    found = command(glm, "--engine", engine, "--hardware", machine, *more)
    flags = recorded_flags(ENGINES[engine].name).flags  # type: ignore[index]
    assert [word for word in found["command"] if word.startswith("--") and word not in flags] == []
    assert ("speculat" in " ".join(found["command"])) == ("--mtp" in more)


def test_hopper(glm: Path) -> None:
    found = command(glm, "--engine", "sglang", "--hardware", "h200x8", "--kv-dtype", "fp8")
    assert "--disable-shared-experts-fusion" in found["command"]
    assert any("weight-only" in note for note in found["notes"])
    assert "fp8_e4m3" in found["command"]
    mended = command(
        glm, "--engine", "sglang", "--hardware", "h200x8", "--kv-dtype", "fp8", "--engine-version", "0.5.23"
    )
    assert "--disable-shared-experts-fusion" not in mended["command"]


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (("vllm", "--hardware", "a100x8"), 1, "FP4"),
        (("sglang", "--hardware", "h100x8", "--preset", "card"), 1, "Blackwell"),
        (("sglang", "--hardware", "b200x4", "--preset", "card"), 1, "8 GPUs"),
        (("vllm", "--hardware", "b200x8", "--preset", "card"), 1, "published"),
        (("vllm", "--hardware", "b200x2"), 1, "does not fit"),
        (("sglang", "--hardware", "h100x8", "--context-length", "1M"), 1, "does not fit"),
        (("sglang", "--hardware", "h200x8", "--engine-version", "0.5.15"), 1, "twice"),
        (("vllm", "--hardware", "mi300xx8"), 1, "rocm"),
        (("tensorrt", "--hardware", "b200x8"), 2, "unknown engine"),
        (("vllm", "--hardware", "b200"), 2, "GPUxCOUNT"),
        (("vllm", "--hardware", "z9x8"), 2, "unknown GPU"),
        (("vllm",), 2, "machine"),
        (("vllm", "--hardware", "b200x8", "--preset", "x"), 2, "card"),
    ],
)
def test_what_cannot_be(glm: Path, options: tuple[str, ...], code: int, reason: str) -> None:
    said = CliRunner().invoke(app, ["serve", str(glm), "--engine", *options, "--print"])
    assert (said.exit_code, reason in said.stderr) == (code, True), said.stderr


def test_a_checkpoint_that_the_gate_refused_is_not_served(glm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "refused"
    folder.mkdir()
    (folder / "config.json").write_bytes((glm / "config.json").read_bytes())
    subprocess.run([sys.executable, "-m", "halfbyte", "gate", str(folder)], capture_output=True, timeout=60)
    decision = json.loads((folder / "gate.json").read_text())
    ask = ("--engine", "vllm", "--hardware", "b200x8")
    assert any(note.startswith("gate: pass") for note in command(folder, *ask)["notes"])
    (folder / "gate.json").write_text(json.dumps(decision | {"decision": "refused"}))
    assert "the gate refused" in halfbyte("serve", str(folder), *ask, "--print", code=1)


ENGINE = """
import sys, threading
sys.path[:0] = {paths!r}
from serve.fakes import Fake, fake_upstream
port = int(sys.argv[sys.argv.index("--port") + 1])
with fake_upstream(Fake(), port) as fake:
    threading.Event().wait()
"""


def test_an_engine_is_started_watched_and_ended(glm: Path, tmp_path: Path) -> None:
    """A stand-in for `vllm` on the path: it gets the command, dies once, and ends with the door."""
    binary = tmp_path / "bin" / "vllm"
    binary.parent.mkdir()
    binary.write_text(
        f"#!{sys.executable}\n"
        f"open({str(tmp_path / 'started')!r}, 'a').write(' '.join(__import__('sys').argv[1:]) + '\\n')\n"
        + ENGINE.format(paths=[str(Path(__file__).parents[1])])
    )
    binary.chmod(0o755)
    key = add_tenant(tmp_path / "state", "a")
    options = ("--engine", "vllm", "--hardware", "b200x8", "--state", str(tmp_path / "state"))
    path = f"{binary.parent}{os.pathsep}{os.environ['PATH']}"
    with door(str(glm), *options, log=tmp_path / "log", PATH=path) as running:
        client = running.client(key)
        ask = {"model": glm.name, "messages": [{"role": "user", "content": "hi"}], "stream": True}
        assert client.post("/v1/chat/completions", json=ask).status_code == 200
        started = (tmp_path / "started").read_text().splitlines()
        assert started[0].startswith(f"serve {glm} --tensor-parallel-size 8 ")
        assert "--host 127.0.0.1 --port " in started[0]
        listed = subprocess.run(
            ["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
        ).stdout
        (child,) = [line.split()[0] for line in listed.splitlines() if str(binary) in line]
        os.kill(int(child), 9)
        until = time.monotonic() + 20
        while client.post("/v1/chat/completions", json=ask).status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert len((tmp_path / "started").read_text().splitlines()) == 2
        assert running.stop() == 0
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(binary) not in listed
    assert usage(tmp_path / "state")["totals"]["output_tokens"] >= 6
