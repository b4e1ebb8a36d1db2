"""Realistic mistakes, one a file: each refused by `deploy --check` with a line that says it; their originals pass.

The second line of a file is what the message must say. test_apiserver.py asks a real server about the same files.
"""

import re
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
