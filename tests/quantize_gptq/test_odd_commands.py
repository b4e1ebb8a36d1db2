"""Command lines of `quantize` on data that cannot work: one clear error, the right exit code, nothing left behind."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from small import small_tensors, write_checkpoint
from stream.models import CHANGES, checkpoint
from typer.testing import CliRunner, Result

from halfbyte.api import quantize
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.cli.main import app
from halfbyte.quantize.verify import verify

LONG = "y" * 300


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data of every kind, as the current one."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).integers(0, 96, (4, 30)).tolist()
    Path("data.jsonl").write_text("\n".join(json.dumps({"input_ids": row}) for row in rows))
    Path("empty.jsonl").write_text("")
    Path("blank.jsonl").write_text("\n \n")
    Path("bad.jsonl").write_text("{nope\n")
    Path("nothing.jsonl").write_text('{"x": 1}\n')
    Path("list.jsonl").write_text("[1]\n")
    Path("large.jsonl").write_text('{"input_ids": [1, 2, 3000]}\n')
    Path("binary.jsonl").write_bytes(b"\xff\x00\x81")
    Path("one-layer.json").write_text('{"3": 1.0}')
    return tmp_path


def run(*options: str, src: Path | str | None = None, dst: str = "out") -> Result:
    command = ["quantize", str(src or checkpoint()), dst, *(options or ())]
    return CliRunner().invoke(app, command)


def refused(result: Result, exit_code: int, *says: str) -> None:
    assert result.exit_code == exit_code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    for text in says:
        assert text in result.stderr
    assert not Path("out").exists()


GPTQ = ["--rounding", "gptq", "--calibrate"]


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "dry-run"])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("missing.jsonl", "missing.jsonl: no such file"),
        ("empty.jsonl", "empty.jsonl: no documents"),
        ("blank.jsonl", "blank.jsonl: no documents"),
        ("bad.jsonl", "bad.jsonl:1: not valid JSON"),
        ("binary.jsonl", "binary.jsonl:1: not valid JSON"),
        ("list.jsonl", "list.jsonl:1: list, wanted a JSON object"),
        ("nothing.jsonl", "nothing.jsonl:1: has none of text, input_ids, messages"),
        ("large.jsonl", "large.jsonl:1: input_ids[2] is 3000, wanted an integer from 0 to 95"),
        (".", "is a folder"),
        ("", "is a folder"),
        (LONG, "no such file"),
    ],
)
def test_data_that_is_none(here: Path, data: str, says: str, more: list[str]) -> None:
    refused(run(*GPTQ, data, *more), 1, says)


@pytest.mark.parametrize(
    ("options", "exit_code", "says"),
    [
        (["--calibration-length", "0"], 2, "--calibration-length 0: wanted at least 1"),
        (["--calibration-tokens", "-5"], 2, "--calibration-tokens -5: wanted at least 1"),
        (["--memory-budget", "1MB"], 2, "shorten the sequences with --calibration-length"),
        (["--device", "tpu"], 2, "--device tpu: wanted cpu or cuda"),
        (["--device", "tpu", "--dry-run"], 2, "--device tpu: wanted cpu or cuda"),
        (["--input-scale", "one-layer.json"], 1, "no value for model.layers.4.mlp.experts.0.gate_proj"),
        (["--input-scale", "Headroom"], 1, "or the rule max or headroom"),
        (["--input-scale", LONG], 1, "cannot be read"),
        (["--input-scale", "1e39"], 1, "wanted a finite number above 0"),
        (["--input-scale", "0"], 1, "wanted a finite number above 0"),
        (["--recipe", LONG], 1, "no recipe and no file is called"),
        (["--recipe", "nvfp4-weight-only", "--input-scale", "max"], 2, "weight-only and has no input scale"),
    ],
)
def test_options_that_cannot_be(here: Path, options: list[str], exit_code: int, says: str) -> None:
    refused(run(*GPTQ, "data.jsonl", *options), exit_code, says)


@pytest.mark.filterwarnings("error")
def test_a_scale_too_large_for_float32_warns_of_nothing(here: Path) -> None:
    refused(run("--input-scale", "1e39"), 1, "--input-scale 1e39: wanted a finite number above 0")


def test_a_data_set_without_a_budget_names_our_option(here: Path) -> None:
    refused(run(*GPTQ, "hf:some/set"), 2, "give --calibration-tokens")


def test_scales_from_a_file_are_checked_before_the_rounding(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from halfbyte.quantize import pipeline

    monkeypatch.setattr(pipeline, "round_on_data", lambda *_: pytest.fail("hours of rounding had begun"))
    refused(run(*GPTQ, "data.jsonl", "--input-scale", "one-layer.json"), 1, "no value for model.layers.4")


def test_documents_longer_than_the_model_has_positions_for(here: Path) -> None:
    config, tensors = small_tensors("GLM-5.2", 3, **CHANGES["GLM-5.2"], max_position_embeddings=20)
    source = write_checkpoint(here / "short", config, tensors)
    refused(run(*GPTQ, "data.jsonl", src=source), 1, "data.jsonl:1: 30 tokens, the model has 20", "-length 20")
    done = run(*GPTQ, "data.jsonl", "--calibration-length", "20", src=source)
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("more", [[], ["--improve"]], ids=["anew", "improve"])
def test_places_that_cannot_be(here: Path, more: list[str]) -> None:
    os.symlink("circle", "circle")
    config, tensors = small_tensors("GLM-5.2", 3, **CHANGES["GLM-5.2"])
    source = write_checkpoint(here / "source", config, tensors)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    for dst in (str(source), "source/inside", ".", "./source/../source"):
        refused(run(*GPTQ, "data.jsonl", *more, src=source, dst=dst), 1, "lies in, around or on the source")
    refused(run(*GPTQ, "data.jsonl", *more, src=source, dst=LONG), 1, "File name too long")
    refused(run(*GPTQ, "data.jsonl", *more, src=source, dst="circle"), 1, "circle")
    assert before == {path.name: path.read_bytes() for path in source.iterdir()}


def test_a_link_that_leads_nowhere(here: Path) -> None:
    os.symlink("nowhere", "dangling")
    refused(run(*GPTQ, "data.jsonl", dst="dangling"), 1, "dangling: is a link to nowhere, which is not there")


@pytest.mark.parametrize(
    "content", [b"\xff\x00{", b'{"job": 3}\n{"sh', b"[]\n", b"\n\n", b'{"job": 3}\n{"shard": []}\n']
)
def test_a_damaged_journal_is_begun_anew(here: Path, content: bytes) -> None:
    staging = Path("out/.halfbyte")
    staging.mkdir(parents=True)
    (staging / "journal.jsonl").write_bytes(content)
    (staging / "activations").mkdir()
    (staging / "activations/state.json").write_text('{"layers": 1e400}')
    done = run(*GPTQ, "data.jsonl", "--overwrite")
    assert done.exit_code == 0, done.stderr
    assert verify(checkpoint(), "out").ok


def test_a_refused_budget_leaves_what_an_interrupted_run_had_rounded(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from halfbyte.quantize.rounding.store import RoundedExperts

    put = RoundedExperts.put

    def stopped(self: RoundedExperts, layer: int, *rest: object) -> None:
        if layer == 4:
            raise KeyboardInterrupt
        put(self, layer, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(RoundedExperts, "put", stopped)
    assert run(*GPTQ, "data.jsonl").exit_code == 130
    rounded = sorted(Path("out/.halfbyte/experts").glob("*.codes"))
    assert len(rounded) == 4
    assert run(*GPTQ, "data.jsonl", "--memory-budget", "1MB").exit_code == 2
    assert sorted(Path("out/.halfbyte/experts").glob("*.codes")) == rounded


def test_verify_holds_codes_against_the_recorded_error(here: Path) -> None:
    """One code changed, and the hash with it: the error is still far below any bound, and not the one on record."""
    quantize(checkpoint(), "out", rounding="gptq", calibrate=["data.jsonl"])
    assert verify(checkpoint(), "out").ok
    name = "model.layers.4.mlp.experts.1.up_proj.weight"
    with Checkpoint.open("out") as opened:
        tensor = opened.tensors[name]
    path = Path("out") / tensor.shard
    content = bytearray(path.read_bytes())
    content[tensor.start + 17] ^= 0x11
    path.write_bytes(content)
    evidence = json.loads(Path("out/halfbyte.json").read_text())
    evidence["shards"][0]["sha256"] = hashlib.sha256(content).hexdigest()
    Path("out/halfbyte.json").write_text(json.dumps(evidence))
    found = verify(checkpoint(), "out").mismatches
    assert [mismatch.tensor for mismatch in found] == [name]
    assert "halfbyte.json has" in found[0].reason
