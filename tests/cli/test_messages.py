"""Errors name options by their Python names, as data; only the command line spells flags."""

import ast
from pathlib import Path

import pytest
from small import small_checkpoint
from typer.testing import CliRunner

import halfbyte
from halfbyte.api import quantize
from halfbyte.cli.main import SUMMARIES, app, command_of
from halfbyte.cli.output import flag
from halfbyte.compare.options import CompareOptions
from halfbyte.data.documents import load
from halfbyte.errors import UsageError, options_called, said

ROOT = Path(halfbyte.__file__).parent


def test_an_option_is_data() -> None:
    with pytest.raises(UsageError) as raised:
        CompareOptions(recall="1k", probes=0)
    assert raised.value.option == "probes"
    assert str(raised.value) == raised.value.message == "probes 0: wanted at least 1"
    assert raised.value.spelled(flag) == ("--probes 0: wanted at least 1", None)


def test_a_callers_name_is_used() -> None:
    with pytest.raises(UsageError) as raised, options_called(max_length="calibration_length"):
        load(["x"], None, max_length=0)  # type: ignore[arg-type]
    assert raised.value.option == "calibration_length"
    assert raised.value.spelled(flag)[0] == "--calibration-length 0: wanted at least 1"


def test_braces_of_users_are_no_options() -> None:
    error = UsageError(said("{recall} {text}: no length", text="{data}"), hint="a {plain} hint")
    assert error.spelled(flag) == ("--recall {data}: no length", "a {plain} hint")


def test_the_command_line_spells_them(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    result = CliRunner().invoke(app, ["quantize", str(source), str(tmp_path / "out"), "--rounding", "gptq"])
    assert result.exit_code == 2
    assert "--rounding gptq rounds on data, and there is none" in result.stderr
    assert "hint: give --calibrate FILE, or use sweep" in result.stderr
    with pytest.raises(UsageError, match=r"^rounding gptq rounds on data"):
        quantize(source, tmp_path / "out", rounding="gptq")


def calls(path: Path) -> list[tuple[str, set[str]]]:
    """Templates of `said` in a file, with the names of their values."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "said":
            template = node.args[0]
            if isinstance(template, ast.Constant):
                found.append((str(template.value), {keyword.arg or "" for keyword in node.keywords}))
    return found


def test_every_option_that_is_named_is_a_flag_of_some_command() -> None:
    """A field of a template that is neither value nor flag is a slip of the pen."""
    commands = [command_of(name) for name in SUMMARIES]
    commands += [inner for command in commands for inner in getattr(command, "commands", {}).values()]
    known = {name for command in commands for option in command.params for name in option.opts}
    named = set()
    for path in ROOT.rglob("*.py"):
        for template, values in calls(path):
            named |= set(said(template, **dict.fromkeys(values)).options)
    assert len(named) > 20
    assert {flag(name) for name in named} - known == set()


def test_one_place_prints() -> None:
    """Whatever is said goes through `cli.output`, where names are made safe to show; chat does so itself."""
    printing = []
    for path in sorted((ROOT / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                printing.append(path.name)
    assert set(printing) == {"output.py", "main.py", "chat.py"}


def test_no_library_error_spells_a_flag() -> None:
    """In the words of an error; findings of the gate and terms of a plan are documents, and say what they say."""
    spelled = []
    for path in ROOT.rglob("*.py"):
        if path.parent.name == "cli" or ("said(" in path.read_text("utf-8") and path.name == "errors.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error"):
                words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                spelled += [f"{path.name}: {word}" for word in words if isinstance(word, str) and "--" in word]
    assert spelled == []
