"""What the command line offers: the nearest name, and completion in a shell."""

import os
import subprocess
import sys

import pytest


def halfbyte(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    code = "import sys; sys.argv[0] = 'halfbyte'; from halfbyte.cli.main import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["quantise"], "quantize"),
        (["doctr"], "doctor"),
        (["quantize", "a", "b", "--recpie", "x"], "--recipe"),
        (["gate", "x", "--ploicy", "y"], "--policy"),
    ],
)
def test_the_nearest_name_is_offered(arguments: list[str], near: str) -> None:
    done = halfbyte(*arguments)
    assert done.returncode == 2
    assert f"Did you mean '{near}'?" in done.stderr
    assert "Possible options" not in done.stderr


def test_what_is_near_nothing_is_not_guessed() -> None:
    done = halfbyte("report", "x", "--zzzzzz")
    assert done.returncode == 2
    assert "Did you mean" not in done.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [("halfbyte re", "report"), ("halfbyte quantize --re", "--recipe"), ("halfbyte doctor --f", "--folder")],
)
def test_a_shell_completes(words: str, offered: str) -> None:
    done = halfbyte(_HALFBYTE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert done.returncode == 0, done.stderr
    assert offered in done.stdout.split()
