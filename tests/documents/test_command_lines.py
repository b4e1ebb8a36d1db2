"""Every command line that README and docs show names a command that there is, with options that it has."""

import re
import shlex
from pathlib import Path

import pytest

from halfbyte.cli.main import SUMMARIES, command_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = re.compile(r"^(?:    |\t)?\$? ?(?:HF_TOKEN=\S+ )?halfbyte ([a-z]\S*.*)$")


def lines(page: Path) -> list[str]:
    """Commands of code blocks, those that go on after a backslash joined."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    fenced, found = False, []
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        shown = SHOWN.match(line)
        if shown and (fenced or line.startswith(("    ", "\t"))):
            found.append(shown.group(1))
    return found


def options_of(words: list[str]) -> set[str]:
    """Of a command, or of the command of a group that the next word names."""
    command = command_of(words[0])
    for word in words[1:]:
        command = getattr(command, "commands", {}).get(word, command)
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}


def test_there_are_many() -> None:
    assert sum(len(lines(page)) for page in PAGES) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_shown_exists(page: Path) -> None:
    wrong = []
    for line in lines(page):
        # usage lines: [--option A|B] means that it may be left out
        plain = re.sub(r"[\[\]]", " ", line.partition("  #")[0].partition(" # ")[0])
        try:
            words = shlex.split(plain)
        except ValueError:
            words = plain.split()
        if words[0] not in SUMMARIES:
            wrong.append(f"halfbyte {words[0]}: no such command")
            continue
        known = options_of(words)
        named = [word.partition("=")[0].rstrip(".,;:") for word in words[1:] if word.startswith("--")]
        wrong += [f"halfbyte {words[0]} {name}: no such option" for name in named if name not in known]
    assert wrong == []
