"""The commands through the real parser: tables, one JSON document, exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compare.models import data, pair
from halfbyte.cli.main import app


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    base, candidate = pair(tmp_path_factory.mktemp("pair"))
    return str(base), str(candidate)


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


def test_table(models: tuple[str, str], tmp_path: Path) -> None:
    code, shown, _ = run("compare", *models, "--data", str(data(tmp_path)), "--slice", "language")
    assert code == 0
    for wanted in ("language = ko", "KL, nats", "same experts", "documents that lost most", "peak memory"):
        assert wanted in shown


def test_json_is_one_document(models: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    one, other = str(data(tmp_path)), str(data(tmp_path / "more", seed=1))
    code, shown, _ = run("compare", *models, "--data", one, other, "--json", "--tokens", "50", "--max-length", "20")
    assert code == 0
    found = json.loads(shown)
    assert found["tokens"] == 50
    assert found["data"]["sources"].keys() == {one, other}


def test_errors(models: tuple[str, str], tmp_path: Path) -> None:
    code, _, errors = run("compare", *models)
    assert (code, "Traceback" in errors) == (2, False)
    assert "error: nothing to compare on" in errors
    code, shown, _ = run("compare", *models, "--data", str(tmp_path / "no.jsonl"), "--json")
    assert code == 1
    assert json.loads(shown)["error"]["kind"] == "bad-data"
    code, _, errors = run("compare", *models, "--data", str(data(tmp_path)), "--memory-budget", "much")
    assert (code, "--memory-budget 'much'" in errors) == (2, True)


def test_search(models: tuple[str, str], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    words = ("search", models[0], "--data", str(data(tmp_path, (9, 8))), "--bits", "12", "-o", str(recipe))
    code, shown, errors = run(*words)
    assert (code, "Traceback" in errors) == (0, False)
    for wanted in ("each group alone", "best trades", "all experts", "written to"):
        assert wanted in shown
    code, shown, errors = run("quantize", models[0], str(tmp_path / "out"), "--recipe", str(recipe), "--json")
    assert code == 0
    assert json.loads(shown)["recipe"] == "recipe"
    code, _, errors = run(*words)
    assert (code, "exists already" in errors) == (1, True)
