"""A checkpoint behind HTTP: judged by ranges, and every way a server can fail is one clear error or one finding."""

import json
from pathlib import Path

import pytest

from halfbyte.checkpoint import remote
from halfbyte.checkpoint.remote import CONNECTIONS
from halfbyte.errors import CheckpointError, UsageError
from halfbyte.gate.judge import gate

from .draft import Draft, flip
from .server import Site, serving

SHARD = "model-00001-of-00001.safetensors"


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.RemoteFiles.__init__, "__defaults__", (lambda seconds: None, 600.0))


def test_a_plain_server_says_what_the_folder_says(tiny_folder: Path) -> None:
    site = Site(tiny_folder)
    with serving(site) as url:
        away = gate(url)
    here = gate(tiny_folder)
    assert away.verdict == here.verdict == "pass"
    assert away.checkpoint["fingerprint"] == here.checkpoint["fingerprint"]
    assert {f.rule for f in away.findings} - {f.rule for f in here.findings} == {"supply.listing"}
    assert site.sent_bytes < 2_000_000 < (tiny_folder / SHARD).stat().st_size


def test_a_hub_name(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(Site(tiny_folder, hub=True)) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        decision = gate("owner/name")
    assert decision.verdict == "pass"
    assert not any(finding.rule == "supply.listing" for finding in decision.findings)
    assert all(row["stated_sha256"] for row in decision.checkpoint["shards"])


def test_a_hub_whose_bytes_are_not_those_of_the_evidence(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tiny_folder, hub=True)
    site.digests[SHARD] = "ab" * 32
    with serving(site) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        decision = gate("owner/name")
    assert decision.verdict == "refused"
    assert [(f.rule, f.found.file) for f in decision.findings if f.refuses] == [("integrity.hash", SHARD)]


def test_a_pickle_in_the_hubs_list_is_seen(tiny: Draft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = tiny.copy()
    draft.side["pytorch_model.bin"] = b"PK"
    folder = draft.write(tmp_path / "x")
    with serving(Site(folder, hub=True)) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        assert "supply.pickle" in {f.rule for f in gate("owner/name").findings if f.refuses}


def test_282_shards_are_fetched_together_and_within_bounds(tiny: Draft, tmp_path: Path) -> None:
    draft = tiny.copy()
    draft.shards = 282
    site = Site(draft.write(tmp_path / "x"))
    with serving(site) as url:
        decision = gate(url)
    assert decision.verdict == "pass"
    assert len(decision.checkpoint["shards"]) == 282
    assert 2 < site.most_open <= CONNECTIONS


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("no ranges", "ignores range requests"),
        ("short", "asked for bytes"),
        ("drops", "cannot be read after"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_clear_error(mode: str, words: str, tiny_folder: Path) -> None:
    with serving(Site(tiny_folder, mode)) as url, pytest.raises(CheckpointError, match=words):
        gate(url)


def test_a_server_that_lies_about_the_size_is_refused(tiny_folder: Path) -> None:
    with serving(Site(tiny_folder, "wrong size")) as url:
        decision = gate(url)
    assert decision.verdict == "refused"
    assert "integrity.shard" in {f.rule for f in decision.findings if f.refuses}


@pytest.mark.parametrize("mode", ["drops once", "busy once"])
def test_what_passes_is_tried_again(mode: str, tiny_folder: Path) -> None:
    with serving(Site(tiny_folder, mode)) as url:
        assert gate(url).verdict == "pass"


def test_damage_is_found_from_afar(tiny: Draft, tmp_path: Path) -> None:
    draft = tiny.copy()
    draft.after = lambda folder: flip(folder / SHARD, 6, 0x7F)
    folder = draft.write(tmp_path / "header")
    with serving(Site(folder)) as url:
        assert next(f.rule for f in gate(url).findings if f.refuses) == "integrity.shard"
    draft.shards, draft.after = 3, lambda folder: (folder / "model-00002-of-00003.safetensors").unlink()
    folder = draft.write(tmp_path / "missing")
    with serving(Site(folder)) as url:
        assert "integrity.shard" in {f.rule for f in gate(url).findings if f.refuses}


def test_deeper_than_headers_is_refused_as_usage(tiny_folder: Path) -> None:
    with serving(Site(tiny_folder)) as url, pytest.raises(UsageError, match="reads weights"):
        gate(url, depth="scales")


def test_nothing_there_is_one_clear_error(tmp_path: Path) -> None:
    with serving(Site(tmp_path)) as url, pytest.raises(CheckpointError, match="holds no checkpoint"):
        gate(url)
    with pytest.raises(CheckpointError, match="cannot be read after"):
        gate("http://127.0.0.1:9/model")


def test_an_index_that_leads_elsewhere_is_not_followed(tiny: Draft, tmp_path: Path) -> None:
    draft = tiny.copy()
    draft.index = lambda index: index["weight_map"].update({"lm_head.weight": "../../secret.safetensors"})
    site = Site(draft.write(tmp_path / "x"))
    with serving(site) as url:
        decision = gate(url)
    assert "integrity.path" in {f.rule for f in decision.findings if f.refuses}
    assert not any("secret" in path for path in site.asked)
    json.dumps(decision.as_json())
