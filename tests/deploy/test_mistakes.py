"""Realistic mistakes, one a file: each refused by `deploy --check` with a line that says it; their originals pass.

The second line of a file is what the message must say. test_apiserver.py asks a real server about the same files.
"""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from halfbyte.deploy.kinds import check_shape
from halfbyte.deploy.kinds.rules import object_faults
from halfbyte.deploy.reading import ManifestError, check

from .conftest import save

FIXTURES = Path(__file__).parent / "fixtures"
MISTAKES = sorted((FIXTURES / "mistakes").glob("*.yaml"))
RIGHT = sorted((FIXTURES / "right").glob("*.yaml"))


ADDRESS = (("metadata", "name"), ("metadata", "namespace"))
WRONG = {"number": 7, "negative": -1, "words": "x y", "list": ["a"], "truth": True, "table": {"a": "b"}}


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every field and every item of an object."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def edits(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each field absent, misspelt, and of every other type."""
    for path in places(document):
        if path[0] in ("apiVersion", "kind") or path in (
            ("metadata",),
            ("metadata", "name"),
            ("metadata", "namespace"),
        ):
            continue
        for name in ("absent", "misspelt", *WRONG):
            edited = copy.deepcopy(document)
            *steps, last = path
            place: Any = edited
            for step in steps:
                place = place[step]
            value = place.pop(last)
            if name == "misspelt" and isinstance(last, str):
                place[f"{last}x"] = value
            elif name in WRONG:
                place.insert(int(last), WRONG[name]) if isinstance(place, list) else place.update({last: WRONG[name]})
            yield f"{'.'.join(map(str, path))} {name}", edited


def faults(document: dict[str, Any]) -> list[str]:
    fault = check_shape(document)
    return [fault] if fault is not None else list(object_faults(document))


def folder_with(document: dict[str, Any], folder: Path) -> Path:
    save(folder, [document])
    return folder


def called(path: Path) -> str:
    return path.stem


def test_there_are_enough() -> None:
    assert len(MISTAKES) >= 40
    assert len(RIGHT) >= 20


@pytest.mark.parametrize("path", RIGHT, ids=called)
def test_what_is_right_passes(path: Path) -> None:
    assert faults(yaml.safe_load(path.read_text("utf-8"))) == []


@pytest.mark.parametrize("path", MISTAKES, ids=called)
def test_a_mistake_is_said(path: Path, tmp_path: Path) -> None:
    text = path.read_text("utf-8")
    document = yaml.safe_load(text)
    expected = text.splitlines()[1].removeprefix("# says: ")
    found = faults(document)
    with pytest.raises(ManifestError, match=re.escape(found[0])):
        check(folder_with(document, tmp_path / "k8s"))
    assert any(expected in fault for fault in found), found
    for fault in found:
        assert fault.startswith(f"{document['kind']} {document['metadata']['name']}: ")
        assert "\n" not in fault


@pytest.mark.parametrize("path", RIGHT, ids=called)
def test_no_edit_breaks_the_check(path: Path) -> None:
    """Each edit is sound, or said in one line; and most are said."""
    found = [faults(edited) for _, edited in edits(yaml.safe_load(path.read_text("utf-8")))]
    assert all("\n" not in fault for one in found for fault in one)
    assert sum(map(bool, found)) > len(found) / 2
