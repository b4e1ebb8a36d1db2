"""`halfbyte schema`: what is printed, what is committed, and what the files are, agree."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from halfbyte.cli.main import app
from halfbyte.cli.schema import DOCUMENTS, schema_of
from halfbyte.recipes.policy import Policy
from halfbyte.recipes.recipe import Recipe

from .documents import DECISION, DOSSIER

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def faults(kind: str, document: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(schema_of(kind)).iter_errors(document)]


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_committed_schema_is_the_one_printed(kind: str) -> None:
    """Written by `halfbyte schema KIND > docs/schemas/KIND.json`."""
    printed = CliRunner().invoke(app, ["schema", kind])
    assert printed.exit_code == 0
    assert printed.stdout == (SCHEMAS / f"{kind}.json").read_text("utf-8")
    Draft202012Validator.check_schema(json.loads(printed.stdout))


def test_no_schema_is_left_over() -> None:
    assert {path.stem for path in SCHEMAS.iterdir()} == set(DOCUMENTS)


def test_an_unknown_document_is_usage() -> None:
    result = CliRunner().invoke(app, ["schema", "halfbite"])
    assert result.exit_code == 2
    assert "halfbite" in result.stderr


def test_our_files_are_what_the_schemas_say() -> None:
    assert faults("halfbyte", DOSSIER) == []
    assert faults("gate", DECISION) == []
    assert faults("halfbyte", DOSSIER | {"shards": 3})
    assert faults("gate", {**DECISION, "decision": "maybe"})


@pytest.mark.parametrize(("kind", "model"), [("recipe", Recipe), ("policy", Policy)])
def test_shipped_files_are_what_the_schemas_say(kind: str, model: type[Recipe] | type[Policy]) -> None:
    for file in model.shipped().values():
        document = yaml.safe_load(file.read_text("utf-8"))
        assert faults(kind, document) == []
        assert faults(kind, document | {"nmae": 1})


@pytest.mark.parametrize("layers", [3, "3-5, 77", [3, "5-6"]])
def test_layers_are_given_in_any_of_the_ways_that_are_read(layers: Any) -> None:
    document = {"version": 1, "name": "mine", "roles": {"routed_expert": "nvfp4"}}
    document |= {"layers": {"overrides": [{"layers": layers, "roles": {"routed_expert": "keep"}}]}}
    assert faults("recipe", document) == []
    assert Recipe.parsed(json.dumps(document), "mine.json").layers.overrides[0].layers
