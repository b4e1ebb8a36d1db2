"""gate.json: its shape, made again, and noticed when anything changed."""

import json
from datetime import date
from pathlib import Path

import pytest

from halfbyte.errors import UsageError
from halfbyte.gate.judge import gate, verify_decision, write_decision

from .draft import Draft, flip

SHARD = "model-00001-of-00001.safetensors"


@pytest.fixture
def folder(tiny: Draft, tmp_path: Path) -> Path:
    draft = tiny.copy()
    draft.after = lambda written: None  # a shard of its own
    return draft.write(tmp_path / "model")


def recorded(folder: Path, **options: object) -> Path:
    path = write_decision(gate(folder, **options), folder)  # type: ignore[arg-type]
    assert path == folder / "gate.json"
    return path


def test_the_shape(folder: Path) -> None:
    (folder / "x.bin").write_bytes(b"x")
    document = json.loads(recorded(folder).read_text())
    assert list(document)[:4] == ["decision", "findings", "checkpoint", "policy"]
    assert document["decision"] == "refused"
    first = document["findings"][0]
    assert first == {
        "rule": "supply.pickle",
        "severity": "deny",
        "message": first["message"],
        "file": "x.bin",
        "waived": False,
    }
    assert len(document["checkpoint"]["fingerprint"]) == len(document["policy"]["sha256"]) == 64
    assert document["tool"]["name"] == "halfbyte"
    assert date.fromisoformat(document["time"][:10])


@pytest.mark.parametrize("depth", ["headers", "full"])
def test_an_unchanged_checkpoint_holds_wherever_it_moved(folder: Path, depth: str) -> None:
    recorded(folder, depth=depth, engine="sglang@0.5.23", hardware="b200x8")
    moved = folder.rename(folder.parent / "elsewhere")
    again, different = verify_decision(moved / "gate.json")
    assert different == []
    assert again.verdict == "pass"


def test_a_changed_config_is_noticed(folder: Path) -> None:
    path = recorded(folder)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    _, different = verify_decision(path)
    assert any("fingerprint" in line for line in different)


def test_a_flipped_weight_is_noticed_at_the_depth_that_read_it(folder: Path) -> None:
    (folder / "halfbyte.json").unlink()
    path = recorded(folder, depth="full")
    flip(folder / SHARD, 9_000_000)
    _, different = verify_decision(path)
    assert any("SHA-256 was" in line for line in different)


def test_an_edited_decision_is_noticed(folder: Path) -> None:
    (folder / "x.bin").write_bytes(b"x")
    path = recorded(folder)
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"decision": "pass", "findings": []}))
    _, different = verify_decision(path)
    assert any("the decision was pass, is now refused" in line for line in different)
    path.write_text(json.dumps(document | {"findings": document["findings"][:1] * 3}))
    assert verify_decision(path)[1]


def test_another_policy_is_noticed(folder: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nname: ours\n")
    path = recorded(folder, policy=policy)
    assert verify_decision(path)[1] == []
    policy.write_text("version: 1\nname: ours\nnumerics: {hot_expert_ratio: 8}\n")
    assert any("policy is another" in line for line in verify_decision(path)[1])


def test_a_waiver_that_expired_meanwhile_is_noticed(folder: Path, tmp_path: Path) -> None:
    (folder / "x.bin").write_bytes(b"x")
    policy = tmp_path / "policy.yaml"
    row = "{rule: supply.pickle, owner: o, reason: r, expires: 2026-12-31}"
    policy.write_text(f"version: 1\nname: ours\nwaivers: [{row}]\n")
    path = recorded(folder, policy=policy, today=date(2026, 12, 1))
    assert verify_decision(path, today=date(2026, 12, 31))[1] == []
    again, different = verify_decision(path, today=date(2027, 1, 1))
    assert again.verdict == "refused"
    assert any("is now refused" in line for line in different)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"gate_version": 1}', '{"gate_version": 1, "decision": "pass"}'])
def test_what_is_no_decision_is_usage(content: str, tmp_path: Path) -> None:
    (tmp_path / "gate.json").write_text(content)
    with pytest.raises(UsageError, match=r"gate\.json"):
        verify_decision(tmp_path / "gate.json")


def test_no_decision_is_left_in_a_signed_folder(folder: Path) -> None:
    (folder / "model.sig").write_text("{}")
    assert write_decision(gate(folder), folder) is None
    assert not (folder / "gate.json").exists()
