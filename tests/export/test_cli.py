"""The command as users type it: result on stdout, one clear error on stderr, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from export.checkpoints import TINY, family_checkpoint, quantized
from halfbyte.cli.export import export
from halfbyte.export import verify_gguf

app = typer.Typer()
app.command()(export)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    return quantized(family_checkpoint(folder / "bf16", "DeepSeek-V3.2"), folder / "nvfp4")


def test_export_prints_one_json_document(source: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(source), str(tmp_path / "out.gguf"), "--json", "--max-shard-size", "500KB"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["architecture"] == "deepseek32"
    assert document["nvfp4_tensors"] == 6
    assert len(document["files"]) > 1
    assert verify_gguf(source, tmp_path / "out.gguf").ok


def test_export_says_what_it_wrote_and_left_out(tmp_path: Path) -> None:
    source = family_checkpoint(tmp_path / "in", "DeepSeek-V3-BF16", num_nextn_predict_layers=1)
    result = CliRunner().invoke(app, [str(source), str(tmp_path / "out.gguf")])
    assert result.exit_code == 0, result.output
    assert "deepseek2, 78 tensors" in result.stdout
    assert "left out: " in result.stdout
    assert "model.layers.5." in result.stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_errors_are_one_message_and_exit_1(source: Path, tmp_path: Path, as_json: bool) -> None:
    (tmp_path / "out.gguf").write_bytes(b"")
    options = ["--json"] if as_json else []
    result = CliRunner().invoke(app, [str(source), str(tmp_path / "out.gguf"), *options])
    assert result.exit_code == 1
    if as_json:
        assert json.loads(result.stdout)["error"]["kind"] == "bad-output"
    else:
        assert "exists" in result.stderr
        assert "--overwrite" in result.stderr
        assert "Traceback" not in result.output


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys; from halfbyte.export import export, verify_gguf; "
        "export(sys.argv[1], sys.argv[2]); assert verify_gguf(sys.argv[1], sys.argv[2]).ok; "
        "print(sorted({'torch', 'transformers', 'tokenizers', 'xllamacpp'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(TINY), str(tmp_path / "tiny.gguf")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
