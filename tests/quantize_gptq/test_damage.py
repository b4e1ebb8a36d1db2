"""Damage to what an interrupted `quantize --rounding gptq` left: the same command finds it, says so, and mends it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import shards
from stream.models import checkpoint
from typer.testing import CliRunner

from halfbyte.api import quantize
from halfbyte.cli.main import app
from halfbyte.quantize import pipeline
from halfbyte.quantize.journal import Journal
from halfbyte.quantize.rounding import cores
from halfbyte.quantize.rounding.openness import FOLDER
from halfbyte.quantize.rounding.stage import round_on_data
from halfbyte.quantize.rounding.store import RoundedExperts, StoredExpert

EXPERTS = [(layer, expert) for layer in (3, 4) for expert in range(4)]


@pytest.fixture(scope="module", autouse=True)
def one_expert_at_a_time() -> Iterator[None]:
    """So that what is there when a run stops is known to the expert."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "MOST", 1)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("damage") / "data.jsonl"
    rows = np.random.default_rng(0).integers(0, 96, (4, 30)).tolist()
    path.write_text("\n".join(json.dumps({"input_ids": row}) for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    out = tmp_path_factory.mktemp("damage") / "wanted"
    quantize(checkpoint(), out, rounding="gptq", calibrate=[data], max_shard_bytes=7_200)
    return out


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def stopped_at(owner: Any, name: str, number: int, out: Path, data: str) -> Path:
    """What Ctrl-C leaves at that call."""
    calls, real = 0, getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return stop() if calls == number else real(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, counted)
        with pytest.raises(KeyboardInterrupt):
            quantize(checkpoint(), out, rounding="gptq", calibrate=[data], max_shard_bytes=7_200, workers=1)
    return out


@pytest.fixture(scope="module")
def half_rounded(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    """Layer 3 is finished, two experts of layer 4 are rounded. Do not write into it."""
    return stopped_at(RoundedExperts, "put", 7, tmp_path_factory.mktemp("damage") / "out", data)


@pytest.fixture(scope="module")
def half_written(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    """All experts are rounded, the first of them are in finished shards. Do not write into it."""
    out = stopped_at(Journal, "shard_done", 40, tmp_path_factory.mktemp("damage") / "out", data)
    assert 0 < len(list(out.glob(".halfbyte/experts/*.codes"))) < len(EXPERTS)
    return out


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def other_scale(path: Path) -> None:
    """Still sound JSON."""
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"scale_2": [2 * value for value in document["scale_2"]]}))


def gone_on(out: Path, data: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[str, list[tuple[int, int]]]:
    """The same command by the command line. Returns what it said, and the experts that it rounded."""
    again: list[tuple[int, int]] = []
    put = RoundedExperts.put

    def counted(self: RoundedExperts, layer: int, expert: int, stored: StoredExpert) -> None:
        again.append((layer, expert))
        put(self, layer, expert, stored)

    monkeypatch.setattr(RoundedExperts, "put", counted)
    command = ["quantize", str(checkpoint()), str(out), "--rounding", "gptq", "--calibrate", data]
    done = CliRunner().invoke(app, [*command, *(options or ("--max-shard-size", "7200"))])
    assert done.exit_code == 0, done.stderr
    assert not (out / ".halfbyte").exists()
    return done.stderr, again


@pytest.mark.parametrize(
    ("ending", "damage"),
    [("codes", truncate), ("codes", flip), ("codes", Path.unlink), ("json", other_scale), ("json", truncate)],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("expert", [(3, 1), (4, 1)], ids=["finished-layer", "layer-at-hand"])
def test_a_damaged_expert_is_named_and_only_it_is_rounded_again(
    expert: tuple[int, int],
    ending: str,
    damage: Callable[[Path], None],
    tmp_path: Path,
    data: str,
    half_rounded: Path,
    wanted: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = shutil.copytree(half_rounded, tmp_path / "out")
    damage(out / f".halfbyte/experts/{expert[0]}-{expert[1]}.{ending}")
    said, again = gone_on(out, data, monkeypatch)
    assert again == sorted({expert, (4, 2), (4, 3)})
    lines = [line for line in said.splitlines() if "missing or damaged" in line]
    assert len(lines) == 1
    assert f"1 of the rounded experts in {out}/.halfbyte/experts missing or damaged" in lines[0]
    assert f"layer {expert[0]}, expert {expert[1]}" in lines[0]
    assert ("ran again" in lines[0]) == (expert[0] == 3)
    assert shards(out) == shards(wanted)
    assert (out / "halfbyte.json").read_bytes() == (wanted / "halfbyte.json").read_bytes()


def test_damage_while_shards_are_written(
    tmp_path: Path, data: str, half_written: Path, wanted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experts that a finished shard has taken are read from there, and not rounded again."""
    out = shutil.copytree(half_written, tmp_path / "out")
    waiting = sorted(out.glob(".halfbyte/experts/*.codes"))[-1]
    flip(waiting)
    said, again = gone_on(out, data, monkeypatch)
    assert [f"{layer}-{expert}" for layer, expert in again] == [waiting.stem]
    assert said.count("missing or damaged") == 1
    assert shards(out) == shards(wanted)
    assert (out / "halfbyte.json").read_bytes() == (wanted / "halfbyte.json").read_bytes()


def test_nothing_is_said_and_nothing_rounded_again_without_damage(
    tmp_path: Path, data: str, half_written: Path, wanted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(half_written, tmp_path / "out")
    said, again = gone_on(out, data, monkeypatch)
    assert not again
    assert "damaged" not in said
    assert shards(out) == shards(wanted)


def test_other_shard_sizes_after_experts_went_into_shards(
    tmp_path: Path, data: str, half_written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finished shards are of no use to the other job, and with them went the codes."""
    out = shutil.copytree(half_written, tmp_path / "out")
    taken = len(EXPERTS) - len(list(out.glob(".halfbyte/experts/*.codes")))
    said, again = gone_on(out, data, monkeypatch, "--max-shard-size", "40000", "--overwrite")
    assert len(again) == taken
    assert f"{taken} of the rounded experts" in said
    quantize(checkpoint(), tmp_path / "wanted", rounding="gptq", calibrate=[data], max_shard_bytes=40_000)
    assert shards(out) == shards(tmp_path / "wanted")


def test_damage_while_the_run_goes_on_says_what_works(
    tmp_path: Path, data: str, half_written: Path, wanted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(half_written, tmp_path / "out")
    command = ["quantize", str(checkpoint()), str(out), "--rounding", "gptq", "--calibrate", data]
    round_experts = round_on_data

    def then_damaged(*arguments: Any) -> Any:
        done = round_experts(*arguments)
        flip(sorted(out.glob(".halfbyte/experts/*.codes"))[-1])
        return done

    monkeypatch.setattr(pipeline, "round_on_data", then_damaged)
    failed = CliRunner().invoke(app, [*command, "--max-shard-size", "7200"])
    assert failed.exit_code == 1
    assert "missing or damaged" in failed.stderr
    assert "run the same command again" in failed.stderr
    monkeypatch.undo()
    _, again = gone_on(out, data, monkeypatch)
    assert len(again) == 1
    assert shards(out) == shards(wanted)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink], ids=lambda value: value.__name__)
def test_damaged_token_weights_are_computed_again(
    damage: Callable[[Path], None],
    tmp_path: Path,
    data: str,
    half_rounded: Path,
    wanted: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = shutil.copytree(half_rounded, tmp_path / "out")
    damage(next(out.glob(".halfbyte/activations/openness-*")))
    assert not (out / ".halfbyte/activations" / FOLDER).exists()
    gone_on(out, data, monkeypatch)
    assert shards(out) == shards(wanted)


def test_what_another_job_left_is_no_damage(tmp_path: Path, half_rounded: Path) -> None:
    out = shutil.copytree(half_rounded, tmp_path / "out")
    (tmp_path / "other.jsonl").write_text(json.dumps({"input_ids": list(range(40))}))
    command = ["quantize", str(checkpoint()), str(out), "--rounding", "gptq", "--calibrate"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "other.jsonl"), "--overwrite"])
    assert done.exit_code == 0, done.stderr
    assert "damaged" not in done.stderr


def test_a_damaged_note_of_whose_the_layers_are_costs_a_pass_and_no_rounding(
    tmp_path: Path, data: str, half_rounded: Path, wanted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(half_rounded, tmp_path / "out")
    (out / ".halfbyte/activations/job").write_bytes(b"\xff")
    _, again = gone_on(out, data, monkeypatch)
    assert again == [(4, 2), (4, 3)]
    assert shards(out) == shards(wanted)
