"""Sources that lie elsewhere: the bytes of a local run, every weight fetched once, nothing of it on the disk."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from gate.server import Site, serving
from small import small_checkpoint
from typer.testing import CliRunner

from halfbyte.api import calibrate, compare, inspect, quantize, verify
from halfbyte.checkpoint import blocks
from halfbyte.cli.main import app
from halfbyte.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_checkpoint(tmp_path_factory.mktemp("source") / "name", "GLM-4.5-Air", shards=3)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


@pytest.fixture(scope="module")
def wanted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("wanted") / "out"
    quantize(source, out)
    return files(out)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("block", [20_000, 8 << 20])
@pytest.mark.parametrize("commit", [None, COMMIT])
def test_from_a_hub(
    source: Path,
    wanted: dict[str, bytes],
    commit: str | None,
    block: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block)
    site = Site(source, hub=True)
    site.commit = commit
    with serving(site) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        quantize("owner/name", tmp_path / "out")
        assert files(tmp_path / "out") == wanted
        weights = sum(path.stat().st_size for path in source.glob("*.safetensors"))
        sent = site.sent_bytes
        assert sent < 2.2 * weights + 200_000  # headers, side files and listing beside the weights, which are tiny here
        assert verify("owner/name", tmp_path / "out").ok
        assert inspect("owner/name@main").parameters == inspect(source).parameters


def test_from_a_url_whose_server_lists_nothing(
    source: Path, wanted: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(blocks, "ROOM_BYTES", 400_000)
    site = Site(source)
    with serving(site) as url:
        quantize(url, tmp_path / "out", workers=1)
        weights = sum(path.stat().st_size for path in source.glob("*.safetensors"))
        headers = 3 * (1 << 18)
        assert site.sent_bytes < 1.1 * weights + headers + 100_000  # hashed as they come, not fetched again
        ours = files(tmp_path / "out")
    assert {name for name in wanted if name.endswith((".safetensors", ".jinja"))} <= ours.keys()
    assert all(ours[name] == content for name, content in wanted.items() if name.endswith(".safetensors"))


@pytest.mark.parametrize("mode", ["busy once", "drops once"])
def test_a_server_that_stumbles(source: Path, wanted: dict[str, bytes], mode: str, tmp_path: Path) -> None:
    with serving(Site(source, mode)) as url:
        quantize(url, tmp_path / "out")
    assert {n: c for n, c in files(tmp_path / "out").items() if n.endswith(".safetensors")} == {
        n: c for n, c in wanted.items() if n.endswith(".safetensors")
    }


@pytest.mark.parametrize(
    ("mode", "said"),
    [("no ranges", "ignores range"), ("moves", "is another file by now"), ("short", "asked for bytes")],
)
def test_a_server_that_cannot_be_trusted(
    source: Path, mode: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    with serving(Site(source, mode)) as url, pytest.raises(CheckpointError, match=said):
        quantize(url, tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


def test_stopped_and_resumed(
    source: Path, wanted: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from halfbyte.quantize.journal import Journal

    quantize(source, tmp_path / "wanted", max_shard_bytes=20_000)
    real, left = Journal.shard_done, 3

    def stopping(self: Journal, *words: Any) -> None:
        nonlocal left
        real(self, *words)
        left -= 1
        if not left:
            raise KeyboardInterrupt

    site = Site(source, hub=True)
    site.commit = COMMIT
    with serving(site) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setattr(Journal, "shard_done", stopping)
        with pytest.raises(KeyboardInterrupt):
            quantize("owner/name", tmp_path / "out", max_shard_bytes=20_000)
        monkeypatch.setattr(Journal, "shard_done", real)
        result = quantize("owner/name", tmp_path / "out", max_shard_bytes=20_000)
    assert result.resumed_shards >= 3
    assert files(tmp_path / "out") == files(tmp_path / "wanted")


def test_hashes_of_what_came_by_outlive_a_kill(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server that states none: what was read as a whole is not fetched again to be hashed."""
    from halfbyte.quantize.journal import Journal

    quantize(source, tmp_path / "wanted", max_shard_bytes=20_000)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5000)
    real = Journal.shard_done
    noted: list[str] = []

    def stopping(self: Journal, *words: Any) -> None:
        real(self, *words)
        noted[:] = self.sources
        if noted:
            raise KeyboardInterrupt

    site = Site(source)
    with serving(site) as url:
        monkeypatch.setattr(Journal, "shard_done", stopping)
        with pytest.raises(KeyboardInterrupt):
            quantize(url, tmp_path / "out", max_shard_bytes=20_000, workers=1)
        assert 0 < len(noted) < 3
        monkeypatch.setattr(Journal, "shard_done", real)
        site.asked.clear()
        assert quantize(url, tmp_path / "out", max_shard_bytes=20_000, workers=1).resumed_shards
        assert site.asked[f"/{noted[0]}"] == 2  # its header, and whether it is still the same file
    ours, wanted = files(tmp_path / "out"), files(tmp_path / "wanted")
    assert all(ours[name] == content for name, content in wanted.items() if name.endswith(".safetensors"))
    hashes = [json.loads(found["halfbyte.json"])["source"]["files"] for found in (ours, wanted)]
    assert hashes[0] == hashes[1]


def test_on_paper(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(source, hub=True)
    with serving(site) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        words = ["quantize", "owner/name", str(tmp_path / "out"), "--dry-run"]
        done = CliRunner().invoke(app, [*words, "--json"])
        assert done.exit_code == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["fetch"]["bytes"] == document["bytes_in"]
        assert "to fetch: " in CliRunner().invoke(app, words).stdout
    assert not (tmp_path / "out").exists()


def test_what_runs_the_model(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """calibrate, compare and a rounding on data, of a model that is never here as a whole."""
    data, other = tmp_path / "data.jsonl", tmp_path / "other.jsonl"
    for path, first in ((data, 0), (other, 5)):
        rows = [{"input_ids": list(range(n, n + 24))} for n in range(first, first + 4)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    site = Site(source, hub=True)
    site.commit = COMMIT
    with serving(site) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        for src, name in (("owner/name", "there"), (source, "here")):
            calibrate(src, [str(data)], tmp_path / f"{name}.json")
            quantize(src, tmp_path / name, calibrate=[str(data)], rounding="gptq")
        assert (tmp_path / "there.json").read_bytes() == (tmp_path / "here.json").read_bytes()
        there = files(tmp_path / "there")
        assert there == files(tmp_path / "here")
        far = compare("owner/name", tmp_path / "there", data=[str(other)]).result
        assert "halfbyte.json" in far["evidence"]
        one = compare(source, tmp_path / "here", data=[str(other)]).result
        assert far["kl"] == one["kl"]
        assert far["kl"]["mean"] > 0
        noted = compare(tmp_path / "here", "owner/name", data=[str(other)]).result["notes"]
        assert any("is not here" in note for note in noted)


def test_a_hub_s_cache(source: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    model = tmp_path / "hub/models--owner--name"
    shutil.copytree(source, model / "snapshots" / COMMIT / "name")
    os.rename(model / "snapshots" / COMMIT / "name", model / "snapshots/name")
    (model / "snapshots" / COMMIT).rmdir()
    quantize(tmp_path / "hub", tmp_path / "one")
    quantize(model, tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two") == wanted
    shutil.copytree(model / "snapshots/name", model / "snapshots/other")
    with pytest.raises(CheckpointError, match="holds 2 snapshots"):
        inspect(model)
    (model / "refs").mkdir()
    (model / "refs/main").write_text("name")
    assert inspect(model).parameters == inspect(source).parameters
    shutil.copytree(model, tmp_path / "hub/models--owner--second")
    with pytest.raises(CheckpointError, match="holds 2 models: owner/name, owner/second"):
        inspect(tmp_path / "hub")
