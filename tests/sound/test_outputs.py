"""What is printed and written: full disks, closed pipes, forged lines, names of every kind."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from halfbyte import text
from halfbyte.checkpoint.index import agrees, short_index
from halfbyte.checkpoint.writer import LONGEST_NAME_BYTES, partial, write_whole
from halfbyte.errors import OutputError
from sound.conftest import Desk

COMMANDS = (
    ("--help",),
    ("--version",),
    ("quantize", "--help"),
    ("inspect", "Q"),
    ("inspect", "Q", "--json"),
    ("verify", "S", "Q"),
    ("plan", "Q", "--gpu", "b200", "--gpus", "1"),
    ("plan", "Q", "--gpu", "b200", "--gpus", "1", "--json"),
    ("gate", "Q"),
    ("gate", "Q", "--format", "json"),
    ("gate", "--explain", "all"),
    ("quantize", "S", "OUT", "--dry-run"),
    ("calibrate", "S", "--data", "data.jsonl", "-o", "scales.json"),
    ("compare", "S", "Q", "--data", "data.jsonl"),
    ("schema", "plan"),
    ("evaluate", "--power"),
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_disk_behind_stdout(arguments: tuple[str, ...], desk: Desk) -> None:
    ended = desk.run(*arguments, stdout="/dev/full")
    assert ended.code == 1
    lines = [one for one in ended.stderr.splitlines() if not one.startswith(("verify", "quantize", "running"))]
    assert lines == ["error: standard output: cannot be written: No space left on device"]


@pytest.mark.parametrize("arguments", [COMMANDS[0], COMMANDS[3], COMMANDS[6], COMMANDS[8], COMMANDS[10]], ids=" ".join)
def test_a_closed_pipe_is_no_error(arguments: tuple[str, ...], desk: Desk) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "halfbyte", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=desk.folder, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_refusal_behind_a_closed_pipe_is_still_told(desk: Desk) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "halfbyte", "inspect", "nowhere", "--json"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=desk.folder, check=False, text=True)
    os.close(write)
    assert done.returncode in (1, 2)
    assert done.stderr


@pytest.mark.parametrize(
    "arguments", [("gate", "Q", "-o"), ("gate", "Q", "--bom"), ("plan", "Q", "--gpu", "b200", "-o")]
)
def test_no_report_is_left_on_a_full_disk(arguments: tuple[str, ...], desk: Desk) -> None:
    (desk.folder / "r.json").write_text("before")

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    more = ("--gpus", "1") if arguments[0] == "plan" else ()
    command = [sys.executable, "-m", "halfbyte", *arguments, "r.json", *more]
    done = subprocess.run(command, capture_output=True, cwd=desk.folder, preexec_fn=no_room, check=False, text=True)
    assert done.returncode == 1, done
    assert "r.json: cannot be written: File too large" in done.stderr
    assert (desk.folder / "r.json").read_text() == "before"
    assert not list(desk.folder.glob("*.partial"))


def test_a_folder_that_cannot_be_written(desk: Desk) -> None:
    if subprocess.run(["mount", "--bind", "Q", "Q"], cwd=desk.folder, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", "Q"], cwd=desk.folder, check=True)
        assert desk.run("gate", "Q").code in (0, 1, 3)
        assert "Read-only file system" in desk.refused("gate", "Q", "-o", "Q/r.json")
        assert "Read-only file system" in desk.refused("plan", "Q", "--gpu", "b200", "--gpus", "1", "-o", "Q/p.json")
        assert "Read-only file system" in desk.refused("quantize", "S", "Q", "--overwrite")
    finally:
        subprocess.run(["umount", "Q"], cwd=desk.folder, check=True)


NAMES = ("a\nerror: forged", "a\x1b[31m", "\udcff", "\u202egnp", "[/red]", "{0}", "a\x9b", "%s")


@pytest.mark.parametrize("name", ["a\nerror: forged\x1b[31m", "\udcff\u202egnp\x9b", "[red]{0}%s"])
def test_no_name_of_a_folder_forges_a_line(name: str, desk: Desk) -> None:
    for one in ("S", "Q"):
        os.rename(desk.folder / one, desk.folder / f"{one}{name}")
    source, made = f"S{name}", f"Q{name}"
    for arguments in (
        ("inspect", made),
        ("inspect", made, "--json"),
        ("quantize", source, f"OUT{name}"),
        ("quantize", source, f"JSON{name}", "--json"),
        ("verify", source, f"OUT{name}"),
        ("gate", made),
        ("gate", made, "--format", "json"),
        ("gate", made, "--format", "junit", "-o", f"r{name}"),
        ("gate", made, "--bom", f"b{name}"),
        ("plan", made, "--gpu", "b200", "--gpus", "1", "-o", f"p{name}"),
        ("inspect", f"nowhere{name}"),
        ("compare", source, made, "--data", f"no{name}"),
    ):
        ended = desk.run(*arguments)
        assert ended.code in (0, 1, 2, 3), ended
        assert "fault of Halfbyte" not in ended.stderr, ended
        for said in (ended.stdout, ended.stderr):
            assert "\nerror: forged" not in said
            assert not any(not one.isprintable() and one != "\n" for one in said)
        if "--json" in arguments or "json" in arguments:
            json.loads(ended.stdout)


def test_no_name_of_a_tensor_or_file_forges_a_line(desk: Desk) -> None:
    path = desk.folder / "S/config.json"
    config = json.loads(path.read_text())
    for value in NAMES:
        path.write_text(json.dumps(config | {"model_type": value, "x": value}))
        for arguments in (("inspect", "S"), ("gate", "S"), ("quantize", "S", "OUT"), ("plan", "S", "--gpu", "b200")):
            ended = desk.run(*arguments)
            assert ended.code in (1, 2), ended
            assert "fault of Halfbyte" not in ended.stderr
            assert not any(not one.isprintable() and one != "\n" for one in ended.stdout + ended.stderr)


def test_a_lone_surrogate_in_a_config_is_carried_as_it_was(desk: Desk) -> None:
    path = desk.folder / "S/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_note": "\ud800"}))
    ended = desk.run("quantize", "S", "OUT", "--json")
    assert ended.code == 0, ended.stderr
    assert json.loads((desk.folder / "OUT/config.json").read_bytes())["_note"] == "\ud800"
    assert desk.run("verify", "S", "OUT").code == 0


@pytest.mark.parametrize("length", [255, 256, 300, 5000])
def test_names_of_every_length(length: int, desk: Desk) -> None:
    name = "n" * (length - 5) + ".gguf"
    for arguments in (("export", "Q", name), ("gate", "Q", "-o", name), ("quantize", "S", name), ("inspect", name)):
        ended = desk.run(*arguments)
        assert ended.code in (0, 1, 2, 3), ended
        assert "fault of Halfbyte" not in ended.stderr


def test_a_name_as_long_as_can_be_is_written(tmp_path: Path) -> None:
    name = "é" * (LONGEST_NAME_BYTES // 2)
    write_whole(tmp_path / name, b"x")
    assert (tmp_path / name).read_bytes() == b"x"
    assert len(os.fsencode(partial(tmp_path / name).name)) <= LONGEST_NAME_BYTES
    assert partial(tmp_path / "a" / "short").name == "short.partial"
    assert partial(tmp_path / ("n" * 255)) != partial(tmp_path / ("n" * 254 + "m"))
    for folder in (Path(), Path(".."), tmp_path):
        with pytest.raises(OutputError, match="is a folder"):
            write_whole(folder, b"x")
    with pytest.raises(OutputError, match="File name too long"):
        write_whole(tmp_path / ("n" * 256), b"x")


@pytest.mark.parametrize(
    "content", [b"{", b"[1]", b"null", b'{"schema": 1}', b"\xff", b'{"schema":' + b"9" * 5000 + b"}"]
)
def test_a_misshapen_dossier(content: bytes, desk: Desk) -> None:
    (desk.folder / "Q/halfbyte.json").write_bytes(content)
    for arguments in (("verify", "S", "Q"), ("chat", "Q", "--prompt", "x", "--engine", "llama.cpp")):
        ended = desk.run(*arguments)
        assert ended.code == 1, ended
        assert "halfbyte.json" in ended.stderr or "llama.cpp" in ended.stderr, ended.stderr
        assert "fault of Halfbyte" not in ended.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_key_value_heads", 3), ("head_dim", 24), ("num_attention_heads", 7), ("hidden_size", 60), ("vocab_size", 95),
     ("num_experts_per_tok", 99), ("hidden_act", "none"), ("rope_theta", "x"), ("head_dim", 10**30),
     *(pytest.param(key, value, marks=pytest.mark.slow) for key, value in
       {"num_experts": 3, "moe_intermediate_size": 48, "decoder_sparse_step": 0, "num_hidden_layers": 4}.items())],
)  # fmt: skip
def test_a_config_at_odds_with_its_model(key: str, value: object, desk: Desk) -> None:
    path = desk.folder / "S/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    for arguments in (("calibrate", "S", "--data", "data.jsonl", "-o", "o.json"), ("quantize", "S", "OUT")):
        ended = desk.run(*arguments)
        assert ended.code in (0, 1, 2), ended
        assert "fault of Halfbyte" not in ended.stderr, ended.stderr


def test_what_is_shown() -> None:
    assert text.line("plain é \U0001f600") == "plain é \U0001f600"
    assert text.line("a\nb\x1b[0m\x9b\u202e\udcff\ud800") == r"a\nb\x1b[0m\x9b\u202e\xff\ud800"
    assert text.block("a\n\tb\x1b\r\x9b") == "a\n\tb\\x1b\\r\\x9b"
    document = {"\udcff": ["\x7f\x9b\u202e\u2028", "é\n"]}
    shown = text.json_text(document)
    assert json.loads(shown) == document
    assert shown.encode() and "é" in shown and not set(shown) & set("\x7f\x9b\u202e\u2028")  # noqa: PT018


def index(**pairs: str) -> bytes:
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": pairs}).encode()


def test_an_index_in_short() -> None:
    short = short_index(index(a="1.safetensors", b="2.safetensors", c="1.safetensors"))
    assert short is not None
    sums = short.sums
    assert json.loads(short.rest) == {"metadata": {"total_size": 1}, "weight_map": {}}
    assert {shard: count for shard, (count, _) in sums.items()} == {"1.safetensors": 2, "2.safetensors": 1}
    spaced = json.dumps(json.loads(index(c="1.safetensors", b="2.safetensors", a="1.safetensors")), indent=2)
    again = short_index(spaced.encode())
    assert again is not None
    assert again.sums == sums
    for odd in (
        b"",
        b"{}",
        index(),
        index(a="../x.safetensors"),
        index(a="b\\n"),
        index(a="1.safetensors")[:-1],
        b"\xff",
    ):
        assert short_index(odd) is None
    assert not agrees(sums, {})


def test_odd_numbers_and_depths(desk: Desk) -> None:
    deep = b'{"a":' * 200_000
    for name in ("config.json", "model.safetensors.index.json", "halfbyte.json"):
        for content in (deep, b'{"num_experts": ' + b"9" * 4000 + b"}"):
            shutil.rmtree(desk.folder / "X", ignore_errors=True)
            shutil.copytree(desk.folder / "Q", desk.folder / "X")
            (desk.folder / "X" / name).write_bytes(content)
            for arguments in (
                ("inspect", "X"),
                ("gate", "X"),
                ("plan", "X", "--gpu", "b200", "--gpus", "1"),
                ("verify", "S", "X"),
            ):
                ended = desk.run(*arguments)
                assert ended.code in (0, 1, 2, 3), ended
                assert "fault of Halfbyte" not in ended.stderr, ended


@pytest.mark.parametrize("template", ["{% if", "", "{{ raise_exception('no') }}", "{{ messages[9].x.y }}", None])
def test_a_chat_template_that_renders_nothing_is_one_error(template: str | None, desk: Desk) -> None:
    from export.checkpoints import write_tokenizer

    write_tokenizer(desk.folder / "S", "qwen3_moe")
    path = desk.folder / "S/chat_template.jinja"
    path.unlink() if template is None else path.write_text(template)
    message = desk.refused("chat", "S", "--prompt", "x", "--engine", "transformers", "--max-tokens", "1")
    assert "chat template" in message
