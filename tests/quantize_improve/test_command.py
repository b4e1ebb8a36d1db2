"""`quantize --improve` end to end: bytes, evidence, what stays, what it says."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import shards
from stream.models import checkpoint
from typer.testing import CliRunner

from halfbyte.api import quantize, verify
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.cli.main import app
from halfbyte.improve.finished import Finished
from halfbyte.progress import Silent
from halfbyte.quantize.job import plan_job
from halfbyte.quantize.room import exchange_bytes
from halfbyte.quantize.rounding.store import RoundedExperts
from halfbyte.quantize.staging import put_in_place
from halfbyte.recipes.recipe import Recipe

from .material import SMALL_SHARDS, check_loads, copied, evidence, made, write_data


def improve(out: Path, data: str, **options: Any) -> Any:
    source = options.pop("source", None) or checkpoint()
    return quantize(source, out, rounding="gptq", calibrate=[data], improve=True, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def values(folder: Path, ending: str) -> dict[str, np.float32]:
    found = {}
    with Checkpoint.open(folder) as checkpoint_:
        for name, tensor in checkpoint_.tensors.items():
            if name.endswith(ending):
                buffer = bytearray(4)
                checkpoint_.read_into(tensor, memoryview(buffer))
                found[name] = np.frombuffer(buffer, "<f4")[0]
    return found


def test_every_file_is_what_one_run_of_gptq_writes(tmp_path: Path, data: str, sweep: Path, wanted: Path) -> None:
    out = copied(sweep, tmp_path / "out")
    result = improve(out, data)
    assert files(out) == files(wanted)
    assert not (out / ".halfbyte").exists()
    changed = [name for name, content in shards(sweep).items() if content != shards(out)[name]]
    assert result.replaced_shards == len(changed) == 6
    assert verify(checkpoint(), out).ok


def test_all_layers_in_one_shard(tmp_path: Path, data: str) -> None:
    whole = {"max_shard_bytes": 1_000_000}
    out = made(tmp_path / "out", rounding="sweep", **whole)
    assert improve(out, data).replaced_shards == 1
    assert files(out) == files(made(tmp_path / "wanted", rounding="gptq", calibrate=[data], **whole))


@pytest.mark.parametrize("family", ["GLM-5.2-fused-mtp", "Qwen3-30B-A3B"])
def test_other_families(tmp_path: Path, data: str, family: str) -> None:
    source = checkpoint(family)
    wanted = made(tmp_path / "wanted", source=source, rounding="gptq", calibrate=[data])
    out = made(tmp_path / "out", source=source, rounding="sweep")
    improve(out, data, source=source)
    assert files(out) == files(wanted)


def test_what_is_no_routed_expert_keeps_its_rounding(tmp_path: Path, data: str) -> None:
    common = {"recipe": "nvfp4-mlp"}
    by_max = made(tmp_path / "max", rounding="max", **common)
    wanted = made(tmp_path / "wanted", rounding="gptq", calibrate=[data], **common)
    out = copied(by_max, tmp_path / "out")
    improve(out, data, **common)
    about = evidence(out)["rounded_on_data"]
    assert about["rounded_by_max"] == ["dense_mlp", "shared_expert"]
    assert "rounded_by_sweep" not in about
    assert about["experts"] == evidence(wanted)["rounded_on_data"]["experts"]
    for row in evidence(out)["roles"]:
        like = wanted if row["role"] == "routed_expert" else by_max
        assert row in evidence(like)["roles"]
    with Checkpoint.open(out) as ours, Checkpoint.open(wanted) as gptq, Checkpoint.open(by_max) as plain:
        for name, tensor in ours.tensors.items():
            other = gptq if ".experts." in name else plain
            contents = [bytearray(tensor.bytes), bytearray(tensor.bytes)]
            ours.read_into(tensor, memoryview(contents[0]))
            other.read_into(other.tensors[name], memoryview(contents[1]))
            assert contents[0] == contents[1], name
    assert verify(checkpoint(), out).ok
    check_loads(out)


def test_input_scales_stay_unless_they_are_given(tmp_path: Path, data: str) -> None:
    out = made(tmp_path / "out", rounding="sweep", input_scale="0.5", recipe="nvfp4-mlp")
    improve(out, data, recipe="nvfp4-mlp")
    assert set(values(out, "input_scale").values()) == {np.float32(0.5)}
    assert evidence(out)["input_scale"]["constant"] == 0.5
    result = improve(out, data, recipe="nvfp4-mlp", input_scale="2")
    assert set(values(out, "input_scale").values()) == {np.float32(2)}
    assert result.input_scale == evidence(out)["input_scale"]["description"]
    wanted = made(tmp_path / "wanted", rounding="gptq", calibrate=[data], input_scale="2", recipe="nvfp4-mlp")
    assert files(out) == files(wanted)


def test_weight_only(tmp_path: Path, data: str) -> None:
    common = {"recipe": "nvfp4-weight-only", "input_scale": None}
    wanted = made(tmp_path / "wanted", rounding="gptq", calibrate=[data], **common)
    out = made(tmp_path / "out", rounding="sweep", **common)
    improve(out, data, recipe="nvfp4-weight-only")
    assert files(out) == files(wanted)


def test_again_with_the_same_data_does_nothing_and_with_other_data_rounds_again(
    tmp_path: Path, data: str, wanted: Path
) -> None:
    out = copied(wanted, tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert improve(out, data).replaced_shards == 0
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    other = write_data(tmp_path / "other.jsonl", seed=9)
    assert improve(out, other).replaced_shards > 0
    assert files(out) == files(made(tmp_path / "other", rounding="gptq", calibrate=[other]))


def test_comparisons_and_side_files_are_kept(tmp_path: Path, data: str, sweep: Path) -> None:
    out = copied(sweep, tmp_path / "out")
    compared = [{"candidate": "other bytes", "overall": {"kl": 0.1}}]
    (out / "halfbyte.json").write_text(json.dumps(evidence(out) | {"compare": compared}))
    (out / "notes.md").write_text("ours")
    (out / "gate.json").write_text("{}")
    result = improve(out, data)
    assert evidence(out)["compare"] == compared
    assert (out / "notes.md").read_text() == "ours"
    assert any("gate.json" in warning for warning in result.warnings)


def test_replaced_shards_are_let_go_of_and_disk_need_is_as_computed(
    tmp_path: Path, data: str, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, most, held = copied(sweep, tmp_path / "out"), 0, set()
    put = RoundedExperts.put

    def weighed() -> None:
        nonlocal most
        staged = [path for path in (out / ".halfbyte").rglob("*") if path.suffix in (".codes", ".partial")]
        staged += (out / ".halfbyte").glob("*.safetensors")
        most = max(most, sum(path.stat().st_size for path in staged))

    class Weighing(Silent):
        def note(self, message: str) -> None:
            for one in Path("/proc/self/fd").iterdir():
                target = os.readlink(one) if one.is_symlink() else ""
                if str(out) in target and target.endswith(".safetensors (deleted)"):
                    held.add(target)

    def put_weighed(self: RoundedExperts, *arguments: Any) -> None:
        put(self, *arguments)
        weighed()

    from halfbyte.improve import exchange

    place = put_in_place

    def place_weighed(*arguments: Any) -> None:
        weighed()
        place(*arguments)

    monkeypatch.setattr(RoundedExperts, "put", put_weighed)
    monkeypatch.setattr(exchange, "put_in_place", place_weighed)
    improve(out, data, progress=Weighing())
    with Checkpoint.open(checkpoint()) as source:
        job = Finished.open(sweep).lay_out(plan_job(source, Recipe.named("nvfp4-routed-experts"), SMALL_SHARDS))
        shards_with_experts = [shard for shard in job.shards if any(unit.linears for unit in shard.units)]
        assert most == exchange_bytes(shards_with_experts, {3, 4}, lambda packed: packed)
    assert not held


def test_the_command_says_what_it_did(tmp_path: Path, data: str, sweep: Path, wanted: Path) -> None:
    out = copied(sweep, tmp_path / "out")
    command = ["quantize", str(checkpoint()), str(out), "--rounding", "gptq", "--calibrate", data, "--improve"]
    dry = CliRunner().invoke(app, [*command, "--dry-run"])
    assert dry.exit_code == 0
    assert "nothing was" in dry.stdout
    assert files(out) == files(sweep)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert f"improved {out}: " in done.stdout
    assert files(out) == files(wanted)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0
    assert "nothing to do" in again.stdout
    printed = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(printed.stdout)["replaced_shards"] == 0
