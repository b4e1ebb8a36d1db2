"""Journal and state of a run: what is damaged is never read as something else, and two runs never share them."""

import json
import os
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from halfbyte.checkpoint.resume import DamagedError, Lines, read_state, source_identity, write_state
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import OutputError

from .files import write_checkpoint

PIECES = [{"piece": number, "sums": [0.5, 1e-30, float(number)], "name": "한국어"} for number in range(4)]


def journal(folder: Path, job: str = "job", discard: bool = False) -> Lines:
    return Lines(folder / "journal", job, where=folder, other="another job", discard=discard)


def written(folder: Path) -> Path:
    lines = journal(folder)
    for piece in PIECES:
        lines.append(piece)
    lines.close()
    return folder / "journal"


def found(folder: Path) -> tuple[list[dict[str, Any]], str | None]:
    lines = journal(folder)
    lines.close()
    return lines.lines, lines.damage


def test_a_run_goes_on_from_what_was_noted(tmp_path: Path) -> None:
    written(tmp_path)
    lines = journal(tmp_path)
    assert lines.resumed
    assert (lines.lines, lines.damage, lines.discarded) == (PIECES, None, None)
    lines.append({"piece": 4})
    lines.close()
    assert found(tmp_path)[0] == [*PIECES, {"piece": 4}]


def test_a_new_journal_has_nothing_behind_it(tmp_path: Path) -> None:
    lines = journal(tmp_path)
    assert not lines.resumed
    assert lines.lines == []
    lines.remove()
    assert not list(tmp_path.iterdir())


def test_a_torn_last_line_is_no_damage(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    assert found(tmp_path) == (PIECES[:-1], None)


def test_a_damaged_line_is_named_and_the_others_count(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"piece": 1', b'"piece": 7'))
    lines, damage = found(tmp_path)
    assert lines == [PIECES[0], *PIECES[2:]]
    assert damage == f"{path}: line 3 damaged; what stood there is done again"
    assert found(tmp_path) == (lines, None)  # the damage is gone with the next run


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_no_flipped_bit_is_believed(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("flip")
    path = written(folder)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        lines, _ = found(folder)
    except OutputError:
        return
    assert all(line in PIECES for line in lines)
    assert len(lines) >= len(PIECES) - 2  # a line break more or less damages two


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"job": "job"}\n{"shard": "a", "sha256": "b"}\n', "another version of Halfbyte"),
        (b'{"job": "job", "steps": 3, "files": []}\n', "another version of Halfbyte"),
        (b"\xff\x00{\n", "its first line is damaged"),
        (b"[]\n", "its first line is damaged"),
        (b"\n\n", "its first line is damaged"),
        (b'{"jo', "its first line is damaged"),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused_and_can_be_thrown_away(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "journal").write_bytes(content)
    with pytest.raises(OutputError, match=message) as caught:
        journal(tmp_path)
    assert "overwrite" in str(caught.value.hint)
    assert (tmp_path / "journal").read_bytes() == content
    lines = journal(tmp_path, discard=True)
    assert not lines.resumed
    assert lines.discarded == []
    lines.close()
    assert found(tmp_path) == ([], None)


def test_another_job_is_refused_and_can_be_thrown_away(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(OutputError, match="another job"):
        journal(tmp_path, "other")
    lines = journal(tmp_path, "other", discard=True)
    assert (lines.resumed, lines.lines, lines.discarded) == (False, [], PIECES)
    lines.close()


def test_an_empty_file_is_a_run_that_had_not_begun(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    assert found(tmp_path) == ([], None)


def test_two_runs_do_not_share_a_journal(tmp_path: Path) -> None:
    first = journal(tmp_path)
    with pytest.raises(OutputError, match="another run"):
        journal(tmp_path, discard=True)
    first.forget()  # the lock goes over to the new file
    with pytest.raises(OutputError, match="another run"):
        journal(tmp_path)
    first.close()
    journal(tmp_path).close()


def test_a_state_is_what_was_written_or_damaged(tmp_path: Path) -> None:
    path, state = tmp_path / "state.json", {"layers": 3, "sums": {"a": "b"}}
    assert read_state(path) is None
    write_state(path, state)
    assert read_state(path) == state
    content = path.read_bytes()
    for wrong in (content.replace(b"3", b"4"), content[:-5], b"", b"[]", b'{"layers": 3}', b'{"layers": 1e400}'):
        path.write_bytes(wrong)
        with pytest.raises(DamagedError, match=r"state\.json: damaged, or of another version"):
            read_state(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedError, match="cannot be read"):
        read_state(path)


def test_a_source_is_known_by_name_size_time_and_header(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"model.safetensors": ["a", "b"]})
    path = tmp_path / "model.safetensors"
    with Checkpoint.open(tmp_path) as checkpoint:
        before = source_identity(checkpoint.shards.values())
    status = path.stat()
    assert before == [["model.safetensors", status.st_size, status.st_mtime_ns, before[0][3]]]
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"a"', b'"c"'))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    with Checkpoint.open(tmp_path) as checkpoint:
        changed = source_identity(checkpoint.shards.values())
    assert changed[0][:3] == before[0][:3]
    assert changed != before
    json.dumps(before)
