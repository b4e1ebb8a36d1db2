"""The site is built, strictly, and its reference is what the code says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from halfbyte.api import __all__ as api
from halfbyte.cli.main import SUMMARIES
from halfbyte.gate.catalogue import all_rules
from halfbyte.models import FAMILIES

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "WARNING" not in done.stderr
    return folder


def test_every_command_rule_and_family_has_its_place(site: Path) -> None:
    commands, rules, families, python = (
        (site / f"{name}.html").read_text("utf-8")
        for name in ("reference/commands", "reference/rules", "families", "reference/api")
    )
    assert [name for name in SUMMARIES if f">halfbyte {name}<" not in commands] == []
    assert [name for name in all_rules() if f"<code>{name}</code>" not in rules] == []
    assert [name for name in FAMILIES if f"<code>{name}</code>" not in families] == []
    assert [name for name in api if f".{name}" not in python] == []
    assert "--interactive" in commands


def test_nothing_is_fetched(site: Path) -> None:
    page = (site / "index.html").read_text("utf-8")
    assert re.findall(r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//', page) == []
    assert re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect)[^>]*href="(?:https?:)?//', page) == []
