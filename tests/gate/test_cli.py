"""The command as programs call it: exit codes, one document on stdout, no traceback."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from halfbyte.cli.main import app
from halfbyte.gate.catalogue import all_rules

from .draft import Draft


def halfbyte(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "halfbyte", "gate", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def folder(tiny: Draft, tmp_path: Path) -> Path:
    return tiny.copy().write(tmp_path / "model")


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def test_pass_refused_undecided(folder: Path, tmp_path: Path) -> None:
    done = halfbyte(folder, "--format", "json")
    assert done.returncode == 0
    found = document(done)
    assert found["decision"] == "pass"
    assert not any(finding["severity"] == "deny" for finding in found["findings"])
    assert json.loads((folder / "gate.json").read_text()) == found

    policy = tmp_path / "p.yaml"
    policy.write_text("version: 1\nname: p\nevidence: [{kind: compare}]\n")
    done = halfbyte(folder, "--policy", policy, "--format", "json")
    assert (done.returncode, document(done)["decision"]) == (3, "undecided")

    (folder / "model.bin").write_bytes(b"x")
    done = halfbyte(folder, "--policy", policy, "--format", "json")
    assert (done.returncode, document(done)["decision"]) == (1, "refused")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["MODEL", "--depth", "deep"],
        ["MODEL", "--format", "yaml"],
        ["MODEL", "--engine", "tgi"],
        ["MODEL", "--engine", "vllm@newest"],
        ["MODEL", "--hardware", "b200"],
        ["MODEL", "--hardware", "b201x8"],
        ["MODEL", "--policy", "strict"],
        ["MODEL", "--cluster", "nowhere.json"],
        ["--verify-decision", "nowhere.json"],
        ["--explain", "supply.pickel"],
        ["./nowhere/at/all"],
        ["MODEL", "--colour"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], tiny_folder: Path) -> None:
    words = [str(tiny_folder) if word == "MODEL" else word for word in arguments]
    done = CliRunner().invoke(app, ["gate", *words])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr


def test_errors_are_one_json_document_too(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = halfbyte(tmp_path / "empty", "--format", "json")
    assert done.returncode == 1
    assert set(document(done)["error"]) == {"kind", "message", "hint"}


def test_explain(tmp_path: Path) -> None:
    done = halfbyte("--explain", "selective.router-bias")
    assert done.returncode == 0
    assert "reorders the top-k" in done.stdout
    assert "expires: YYYY-MM-DD" in done.stdout
    every = halfbyte("--explain", "all").stdout
    assert all(f"`{rule}`" in every for rule in all_rules())


def test_reports_go_to_a_file_and_decisions_hold(folder: Path, tmp_path: Path) -> None:
    for form in ("sarif", "junit", "html", "table"):
        done = CliRunner().invoke(app, ["gate", str(folder), "--format", form, "-o", str(tmp_path / form)])
        assert (done.exit_code, done.stdout) == (0, "")
        assert (tmp_path / form).read_text()
    assert halfbyte("--verify-decision", folder / "gate.json").returncode == 0
    (folder / "model.bin").write_bytes(b"x")
    assert halfbyte("--verify-decision", folder / "gate.json").returncode == 1


def test_the_gate_needs_no_torch(folder: Path) -> None:
    program = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # importing either now raises
from halfbyte.gate.judge import gate
assert gate({str(folder)!r}, depth="full", hardware="b200x8").verdict == "pass"
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


def test_the_documented_rules_are_those_that_exist() -> None:
    documented = (Path(__file__).parents[2] / "docs/gate.md").read_text()
    assert halfbyte("--explain", "all").stdout.strip() in documented
