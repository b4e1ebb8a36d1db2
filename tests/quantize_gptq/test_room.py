"""The room that a run says it needs on the disk, against what real runs leave there at their largest."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream.models import checkpoint
from typer.testing import CliRunner

from halfbyte.api import quantize
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.cli.main import app
from halfbyte.errors import OutputError
from halfbyte.quantize import room as room_module
from halfbyte.quantize import staging
from halfbyte.quantize.calibrated import DataBounds
from halfbyte.quantize.job import Job, plan_job
from halfbyte.quantize.room import OPEN_SHARDS, activation_bytes, room_for
from halfbyte.quantize.threads import OpenShard
from halfbyte.recipes.recipe import Recipe
from halfbyte.stream import executor
from halfbyte.stream.budget import divide as budget_divide

LENGTHS = [60] * 100
SMALL_SHARDS = 7_200


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [
        json.dumps({"input_ids": np.random.default_rng(i).integers(0, 96, n).tolist()}) for i, n in enumerate(LENGTHS)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    return str(tmp_path / "data.jsonl")


class Watching:
    """The largest sizes of a folder's parts while it is open, by blocks on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.most = folder, {"spilled": 0, "experts": 0, "shards": 0, "all": 0}
        self._end = threading.Event()

    def __enter__(self) -> "Watching":
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.001):
            found = dict.fromkeys(self.most, 0)
            with suppress(OSError):  # files come and go meanwhile
                for path in self.folder.rglob("*"):
                    part = self._part(path)
                    size = path.lstat().st_blocks * 512 if part else 0
                    found["all"] += size
                    if part in found:
                        found[part] += size
            self.most = {key: max(self.most[key], found[key]) for key in found}

    def _part(self, path: Path) -> str:
        if "activations" in path.parts:
            return "spilled" if path.name.startswith(("hidden-", "rows-", "selection-", "openness-")) else "findings"
        if "experts" in path.parts:
            return "experts"
        return "shards" if ".safetensors" in path.name and "index" not in path.name else ""


def job_of(shard_bytes: int) -> tuple[Job, dict[str, Any]]:
    with Checkpoint.open(checkpoint()) as source:
        return plan_job(source, Recipe.named("nvfp4-routed-experts"), shard_bytes), source.config


@pytest.mark.parametrize("budget", [pytest.param(None, marks=pytest.mark.slow), 3_000_000_000])
def test_a_run_stays_within_its_room_and_nearly_fills_it(
    tmp_path: Path, data: str, budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide: Callable[..., Any] = budget_divide

    def all_in_files(*arguments: Any) -> Any:
        plan = divide(*arguments)
        return plan if budget is None else replace(plan, places=("file",) * 4)

    monkeypatch.setattr(executor, "divide", all_in_files)
    out = tmp_path / "out"
    with Watching(out) as watching:
        quantize(
            checkpoint(),
            out,
            rounding="gptq",
            calibrate=[data],
            memory_budget=budget,
            max_shard_bytes=SMALL_SHARDS,
        )
    most, (job, config) = watching.most, job_of(SMALL_SHARDS)
    bounds = DataBounds(None, 2048, budget, "cpu")
    room = room_for(job, config, LENGTHS, bounds, {3, 4})
    spilled = activation_bytes(job, config, LENGTHS, bounds) - 2 * room_module._findings_bytes(job)
    blocks = 10 * 4096  # of the files that are not whole blocks
    assert 0.9 * spilled <= most["spilled"] <= spilled + blocks
    assert 0.75 * room.rounded_experts <= most["experts"] <= room.rounded_experts
    assert 0.9 * room.shards <= most["shards"] <= room.shards + 4096 * len(job.shards)
    assert most["all"] <= room.peak + blocks


def test_few_shards_are_open_at_once(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small they are and however many workers there are."""
    open_now, most = set(), 0
    begin, finish = OpenShard.__init__, room_module.OPEN_SHARDS
    from halfbyte.quantize.journal import Journal

    done = Journal.shard_done

    def begun(self: OpenShard, *arguments: Any) -> None:
        nonlocal most
        begin(self, *arguments)
        open_now.add(self.shard.file)
        most = max(most, len(open_now))

    def noted(self: Journal, file: str, *rest: Any) -> None:
        time.sleep(0.002)
        done(self, file, *rest)
        open_now.discard(file)

    monkeypatch.setattr(OpenShard, "__init__", begun)
    monkeypatch.setattr(Journal, "shard_done", noted)
    quantize(
        checkpoint(),
        tmp_path / "out",
        rounding="gptq",
        calibrate=[data],
        calibration_tokens=60,
        max_shard_bytes=SMALL_SHARDS,
        workers=8,
    )
    assert most == finish == OPEN_SHARDS


def test_a_dry_run_names_the_room(tmp_path: Path, data: str) -> None:
    command = ["quantize", str(checkpoint()), str(tmp_path / "out"), "--rounding", "gptq", "--calibrate", data]
    job, config = job_of(5_000_000_000)
    room = room_for(job, config, LENGTHS, DataBounds(None, 2048, None, "cpu"), {3, 4})
    printed = CliRunner().invoke(app, [*command, "--dry-run", "--json"])
    assert json.loads(printed.stdout)["room"] == room.as_json()
    said = CliRunner().invoke(app, [*command, "--dry-run"]).stdout
    assert "room on the disk: at most" in said
    assert "activations" in said
    assert "rounded experts" in said
    plain = CliRunner().invoke(app, ["quantize", str(checkpoint()), str(tmp_path / "out"), "--dry-run", "--json"])
    assert json.loads(plain.stdout)["room"] == {
        "shards": job.output_bytes,
        "rounded_experts": 0,
        "activations": 0,
        "peak": job.output_bytes,
    }
    assert not (tmp_path / "out").exists()


def test_a_disk_with_room_for_the_shards_alone_is_refused_before_the_work(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, config = job_of(5_000_000_000)
    room = room_for(job, config, LENGTHS, DataBounds(None, 2048, None, "cpu"), {3, 4})
    free = job.output_bytes + staging.SPARE_BYTES

    class Usage:
        def __init__(self, _: Path) -> None:
            self.free = free

    monkeypatch.setattr(shutil, "disk_usage", Usage)
    with pytest.raises(OutputError, match=r"the disk has 0\.07 GB free"):
        quantize(checkpoint(), tmp_path / "out", rounding="gptq", calibrate=[data])
    assert not (tmp_path / "out").exists()
    quantize(checkpoint(), tmp_path / "plain", rounding="sweep")
    free += room.peak - job.output_bytes
    quantize(checkpoint(), tmp_path / "out", rounding="gptq", calibrate=[data], calibration_tokens=60)


def test_shards_of_the_checkpoint_that_is_replaced_are_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay until the new one is complete."""
    out = tmp_path / "out"
    quantize(checkpoint(), out)

    class Usage:
        def __init__(self, _: Path) -> None:
            self.free = staging.SPARE_BYTES

    monkeypatch.setattr(shutil, "disk_usage", Usage)
    with pytest.raises(OutputError, match="the disk has"):
        quantize(checkpoint(), out, rounding="sweep", overwrite=True)
