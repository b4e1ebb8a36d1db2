"""The documents that travel: read and written again byte for byte, and the field at fault is named."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_checkpoint

from halfbyte.api import gate, plan, quantize
from halfbyte.errors import CheckpointError, OutputError, UsageError
from halfbyte.evidence.decision import DecisionDocument
from halfbyte.evidence.dossier import Dossier, identity
from halfbyte.evidence.plan import PlanDocument
from halfbyte.evidence.record import JsonDocument, json_bytes

from .documents import DECISION, DOSSIER, dossier

Place = tuple[int | str, ...]
FREE = {"settings", "sampling", "calibration.experts", "rules", "blocks", "recipe.layers", "efficiency", "traffic"}
"""Places whose inside is not typed: options and statistics that nobody reads by name."""


def small_plan(folder: Path) -> dict[str, Any]:
    (folder / "plan").mkdir()
    document: dict[str, Any] = plan(str(small_checkpoint(folder / "source")), "b200", 1).as_json()
    return document


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[type[JsonDocument], dict[str, Any]]:
    return {Dossier: DOSSIER, DecisionDocument: DECISION, PlanDocument: small_plan(tmp_path_factory.mktemp("plan"))}


KINDS = [Dossier, DecisionDocument, PlanDocument]


def leaves(node: Any, place: Place = ()) -> Iterator[Place]:
    """Places of everything that is neither object nor list."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if inner is None:
        yield place
        return
    for key, value in inner:
        yield from leaves(value, (*place, key))


def objects(node: Any, place: Place = ()) -> Iterator[Place]:
    if isinstance(node, dict):
        yield place
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from objects(value, (*place, key))


def at(document: Any, place: Place) -> Any:
    for piece in place:
        document = document[piece]
    return document


def free(place: Place) -> bool:
    text = ".".join(map(str, place))
    return any(f".{name}." in f".{text}." for name in FREE)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_written_again(kind: type[JsonDocument], documents: dict[type[JsonDocument], Any]) -> None:
    wanted = json_bytes(documents[kind], indent=kind.indent, ascii=kind.ascii)
    assert kind.of(json.loads(wanted), "x").to_bytes() == wanted


later = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data(), value=later)
@settings(max_examples=60, deadline=None)
def test_what_a_later_version_adds_is_carried_along(data: st.DataObject, value: Any) -> None:
    document = dossier()
    tables = {"versions", "roles", "sources", "labels", "held_out", "inputs", "largest", "tensors", "histogram"}
    tables |= {"experts", "slices", "domain", "log_probability", "rank", "recalled"}
    places = [place for place in objects(document) if not place or (place[-1] not in tables and not free(place))]
    at(document, data.draw(st.sampled_from(places)))["of a later version"] = value
    assert Dossier.of(document, "x").to_bytes() == json_bytes(document)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_the_field_at_fault_is_named(
    kind: type[JsonDocument], documents: dict[type[JsonDocument], Any], data: st.DataObject
) -> None:
    """Any one value of another kind is refused under its own name."""
    document = json.loads(json.dumps(documents[kind]))
    key, _ = kind.version
    place = data.draw(st.sampled_from([one for one in leaves(document) if not free(one) and one != (key,)]))
    at(document, place[:-1])[place[-1]] = [{}]
    with pytest.raises(kind.error) as raised:
        kind.of(document, "the file")
    assert f"the file: {'.'.join(map(str, place))}" in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_field_is_named(kind: type[JsonDocument], documents: dict[type[JsonDocument], Any]) -> None:
    for name, field in kind.model_fields.items():
        key = field.alias or name
        if field.is_required() and key != kind.version[0]:
            document = {other: value for other, value in documents[kind].items() if other != key}
            with pytest.raises(kind.error, match=f"the file: {key}: Field required"):
                kind.of(document, "the file")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"a": ', b"[" * 100_000, b"1" * 5000, b"null"])
def test_what_is_no_document_is_one_clear_error(kind: type[JsonDocument], content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(kind.error, match=r"x\.json: "):
        kind.read(tmp_path / "x.json")
    with pytest.raises(kind.error, match="missing"):
        kind.read(tmp_path / "y.json")
    with pytest.raises(kind.error, match="is a folder, wanted a regular file"):
        kind.read(tmp_path)


def test_another_version_is_refused() -> None:
    with pytest.raises(CheckpointError, match="schema 2, wanted 1"):
        Dossier.of(dossier() | {"schema": 2}, "x")
    with pytest.raises(UsageError, match="gate_version None, wanted 1"):
        DecisionDocument.of({**DECISION, "gate_version": None}, "x")


@pytest.mark.parametrize("value", ["0.1", True, 10**400, "NaN"])
def test_a_figure_is_a_number(value: Any) -> None:
    document = dossier()
    document["compare"][0]["result"]["kl"]["mean"] = value
    with pytest.raises(CheckpointError, match=r"compare\.0\.result\.kl\.mean: wanted a number"):
        Dossier.of(document, "x")


def test_a_hostile_key_is_shown_harmless() -> None:
    document = dossier()
    document["tensors"]["\x1b[2J\n\ud800"] = 3
    with pytest.raises(CheckpointError) as raised:
        Dossier.of(document, "x")
    assert str(raised.value).isprintable()


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    Dossier.of(dossier(), "x").write(tmp_path / "halfbyte.json")
    assert [path.name for path in tmp_path.iterdir()] == ["halfbyte.json"]
    with pytest.raises(OutputError, match="nowhere"):
        Dossier.of(dossier(), "x").write(tmp_path / "nowhere" / "halfbyte.json")


def test_a_field_is_left_out_and_the_rest_stays() -> None:
    full = Dossier.of(dossier(), "x")
    assert full.without("improving").as_json() == {k: v for k, v in DOSSIER.items() if k != "improving"}
    assert full.improving is not None


def test_a_shard_in_flight_may_have_either_hash() -> None:
    document = Dossier.of(dossier(), "x")
    shard = document.shards[0]
    assert document.allows(shard.file, shard.sha256)
    assert document.allows(shard.file, "f" * 64)
    assert not document.allows(shard.file, "e" * 64)
    assert not document.without("improving").allows(shard.file, "f" * 64)
    assert identity({"b": "2", "a": "1"}) == identity({"a": "1", "b": "2"}) != identity({"a": "2", "b": "1"})


def test_real_ones(tmp_path: Path) -> None:
    """What the commands leave is what the types say, to the byte."""
    quantize(small_checkpoint(tmp_path / "in"), tmp_path / "out")
    decision = gate(tmp_path / "out")
    decision.document().write(tmp_path / "gate.json")
    made = plan(str(tmp_path / "out"), "b200", 1)
    made.write(tmp_path / "plan.json")
    files: dict[type[JsonDocument], Path] = {Dossier: tmp_path / "out/halfbyte.json"}
    files |= {DecisionDocument: tmp_path / "gate.json", PlanDocument: tmp_path / "plan.json"}
    for kind, path in files.items():
        assert kind.read(path).to_bytes() == path.read_bytes()
    assert json.loads((tmp_path / "plan.json").read_text()) == made.as_json()
