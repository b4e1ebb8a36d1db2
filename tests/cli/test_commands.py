"""The commands as programs call them: exit codes, JSON on stdout and nothing else there, start-up without torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small import small_checkpoint

from halfbyte import errors
from halfbyte.cli.output import parse_size

ROOT = Path(__file__).parents[2]
MOST_MODULES_OF_HELP = 200
"""Modules that `--help` may import, the interpreter's own among them: 167 when this was written."""

TINY = ROOT / "examples/tiny-glm"


def halfbyte(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "halfbyte", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def test_inspect_json_of_the_tiny_model() -> None:
    found = document(halfbyte("inspect", TINY, "--json"))
    assert list(found) == ["model_type", "tensors", "parameters", "bytes", "bits_per_weight", "groups"]
    assert (found["model_type"], found["tensors"], found["parameters"]) == ("glm_moe_dsa", 340, 14_613_328)
    routed = {"role": "routed_expert", "mtp": False, "format": "bf16"}
    assert routed | {"tensors": 240, "parameters": 7_864_320, "bytes": 15_728_640} in found["groups"]
    for key in ("tensors", "parameters", "bytes"):
        assert found[key] == sum(group[key] for group in found["groups"])


def test_quantize_verify_inspect(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = halfbyte("quantize", TINY, out, "--json")
    assert made.returncode == 0
    result = document(made)
    assert {"output", "bytes_in", "bytes_out", "seconds", "peak_rss_bytes", "roles"} <= set(result)
    checked = halfbyte("verify", TINY, out, "--json")
    assert checked.returncode == 0
    verdict = document(checked)
    assert list(verdict) == ["ok", "tensors", "mismatches", "worst"]
    assert (verdict["ok"], verdict["tensors"], verdict["mismatches"]) == (True, 340, [])
    groups = document(halfbyte("inspect", out, "--json"))["groups"]
    routed = {"role": "routed_expert", "mtp": False, "format": "nvfp4", "tensors": 240, "parameters": 7_864_320}
    assert routed | {"bytes": 7_864_320 * 9 // 16 + 8 * 240} in groups


def test_verify_exits_with_1_and_names_the_tensor(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    assert halfbyte("quantize", source, tmp_path / "out").returncode == 0
    shard = tmp_path / "out/model-00001-of-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 0xFF
    shard.write_bytes(content)
    checked = halfbyte("verify", source, tmp_path / "out", "--json")
    assert checked.returncode == 1
    assert {"tensor", "reason"} == set(document(checked)["mismatches"][0])


@pytest.mark.parametrize("command", ["inspect", "quantize", "verify"])
def test_errors_are_one_json_document_and_exit_1(tmp_path: Path, command: str) -> None:
    arguments = [tmp_path / "nowhere"] + ([tmp_path / "out"] if command != "inspect" else [])
    failed = halfbyte(command, *arguments, "--json")
    assert failed.returncode == 1
    error = document(failed)["error"]
    assert set(error) == {"kind", "message", "hint"}
    assert error["kind"] == "bad-checkpoint"
    assert "nowhere" in error["message"]
    assert failed.stderr.splitlines()[0] == f"error: {error['message']}"  # for the log, too
    assert "Traceback" not in failed.stderr


def test_errors_for_people_go_to_stderr_with_a_hint(tmp_path: Path) -> None:
    failed = halfbyte("quantize", TINY, tmp_path / "out", "--recipe", "nvfp4-routed")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert (
        failed.stderr
        == "error: no recipe and no file is called 'nvfp4-routed'\nhint: did you mean 'nvfp4-routed-experts'?\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["quantize", "only-one"],
        ["quantize", TINY, "out", "--rounding", "floor"],
        ["quantize", TINY, "out", "--max-shard-size", "five"],
        ["quantize", TINY, "out", "--workers", "0"],
        ["conjure"],
        ["inspect", TINY, "--colour"],
    ],
)
def test_usage_errors_exit_2(tmp_path: Path, arguments: list[object]) -> None:
    failed = halfbyte(*arguments, cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == []


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    planned = document(halfbyte("quantize", TINY, tmp_path / "out", "--dry-run", "--json"))
    assert planned["dry_run"]
    assert planned["bytes_out"] < planned["bytes_in"]
    assert list(tmp_path.iterdir()) == []


def test_help_is_light_and_needs_no_torch() -> None:
    """What is imported decides how long `--help` takes, on a loaded machine too."""
    program = """
import sys
from halfbyte.cli.main import app
try:
    app(["--help"])
except SystemExit:
    pass
heavy = ("torch", "numpy", "numba", "pydantic", "yaml", "httpx")
print(len(sys.modules), *[name for name in heavy if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "quantize" in shown
    modules, *heavy = shown.splitlines()[-1].split()
    assert heavy == []
    assert int(modules) < MOST_MODULES_OF_HELP


def test_no_core_command_imports_torch(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    program = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # importing either now raises
from halfbyte.api import inspect, quantize, verify
quantize({str(source)!r}, {str(tmp_path / "out")!r})
assert verify({str(source)!r}, {str(tmp_path / "out")!r}).ok
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("500 MB", 5 * 10**8), ("1.5gb", 1.5e9), ("4GiB", 4 * 2**30), ("7", 7)]
)
def test_sizes(text: str, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "1XB", "nan", "infGB"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(errors.UsageError):
        parse_size(text)


def test_export_and_verify_a_gguf(tmp_path: Path) -> None:
    out = tmp_path / "tiny.gguf"
    assert document(halfbyte("export", TINY, out, "--json"))["files"] == [str(out)]
    assert document(halfbyte("verify", TINY, out, "--json")) == {
        "ok": True,
        "tensors": 121,
        "mismatches": [],
        "worst": [],
    }
    content = bytearray(out.read_bytes())
    content[-1] ^= 1
    out.write_bytes(content)
    damaged = halfbyte("verify", TINY, out, "--json")
    assert damaged.returncode == 1
    assert set(document(damaged)["mismatches"][0]) == {"tensor", "reason"}
