"""What programs read: SARIF by its rules, JUnit by a CI's reader, HTML with nothing outside itself."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import junitparser
import pytest

from halfbyte.errors import UsageError
from halfbyte.gate.catalogue import all_rules
from halfbyte.gate.formats import FORMATS, rendered
from halfbyte.gate.judge import gate

from .draft import Draft
from .test_corpus import policy_with

STRING = {"type": "string"}
MESSAGE = {"type": "object", "required": ["text"], "properties": {"text": STRING}}
SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"enum": ["2.1.0"]},
        "runs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "type": "object",
                                            "required": ["id"],
                                            "properties": {"shortDescription": MESSAGE, "fullDescription": MESSAGE},
                                        },
                                    }
                                },
                            }
                        },
                    },
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["message"],
                            "properties": {
                                "message": MESSAGE,
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "suppressions": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "required": ["kind"],
                                        "properties": {
                                            "kind": {"enum": ["inSource", "external"]},
                                            "status": {"enum": ["accepted", "underReview", "rejected"]},
                                        },
                                    },
                                },
                                "locations": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "properties": {
                                            "logicalLocations": {"type": "array", "uniqueItems": True},
                                            "physicalLocation": {
                                                "type": "object",
                                                "required": ["artifactLocation"],
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    },
                    "invocations": {
                        "type": "array",
                        "items": {"type": "object", "required": ["executionSuccessful"]},
                    },
                },
            },
        },
    },
}
"""The parts of the OASIS schema (2.1.0) that this writer uses, retold."""


@pytest.fixture(scope="module")
def refused(tiny: Draft, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Refused for a file, a tensor and a module with names from hell; one finding waived."""
    draft = tiny.copy()
    draft.side["<script>alert(1)</script>\x07&.bin"] = b"x"
    draft.tensors["model.<b>\x1b[31m.weight"] = ("U8", (0,), b"")
    draft.pack("model.layers.3.self_attn.o_proj")
    (draft.config or {})["auto_map"] = {"AutoConfig": "x"}
    waiver = {"rule": "supply.remote-code", "owner": "o", "reason": "r", "expires": "2999-01-01"}
    folder = draft.write(tmp_path_factory.mktemp("gate") / "x")
    return gate(folder, policy=policy_with({"waivers": [waiver]})).as_json()


@pytest.fixture(scope="module")
def passed(tiny_folder: Path) -> dict[str, Any]:
    return gate(tiny_folder).as_json()


def test_sarif(refused: dict[str, Any], passed: dict[str, Any]) -> None:
    for document in (refused, passed):
        log = json.loads(rendered(document, "sarif"))
        jsonschema.validate(log, SARIF)
        run = log["runs"][0]
        rules = run["tool"]["driver"]["rules"]
        assert [rule["id"] for rule in rules] == list(all_rules())
        assert len(run["results"]) == len(document["findings"])
        for result in run["results"]:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    run = json.loads(rendered(refused, "sarif"))["runs"][0]
    assert [r["ruleId"] for r in run["results"] if "suppressions" in r] == ["supply.remote-code"]
    uris = [
        place["physicalLocation"]["artifactLocation"]["uri"]
        for result in run["results"]
        for place in result.get("locations", [])
        if "physicalLocation" in place
    ]
    assert uris
    assert all(re.fullmatch(r"[\w.~%/-]+", uri) for uri in uris)


def test_junit_as_a_ci_reads_it(refused: dict[str, Any], passed: dict[str, Any]) -> None:
    suites = junitparser.JUnitXml.fromstring(rendered(refused, "junit").encode())
    assert suites.tests == len(all_rules()) + 1
    refusing = {f["rule"] for f in refused["findings"] if f["severity"] == "deny" and not f["waived"]}
    failed = {case.name for suite in suites for case in suite if any(r._tag == "failure" for r in case.result)}
    assert failed == refusing | {"decision"}
    assert suites.failures == len(failed)
    clean = junitparser.JUnitXml.fromstring(rendered(passed, "junit").encode())
    assert (clean.failures, clean.errors) == (0, 0)
    assert clean.skipped > 0


def test_junit_calls_an_open_question_an_error(tiny_folder: Path) -> None:
    document = gate(tiny_folder, policy=policy_with({"required_depth": "full"})).as_json()
    assert document["decision"] == "undecided"
    suites = junitparser.JUnitXml.fromstring(rendered(document, "junit").encode())
    assert (suites.failures, suites.errors) == (0, 1)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_html_is_one_file_and_escapes_names(refused: dict[str, Any]) -> None:
    text = rendered(refused, "html")
    parser = Tags()
    parser.feed(text)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in parser.tags}
    assert not any({"src", "href", "onclick"} & set(attributes) for _, attributes in parser.tags)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text


def test_table_and_json(refused: dict[str, Any]) -> None:
    text = rendered(refused, "table")
    assert text.rstrip().splitlines()[-1].startswith("refused: ")
    assert "supply.pickle" in text
    assert "\x1b" not in text
    assert json.loads(rendered(refused, "json")) == json.loads(json.dumps(refused))


def test_unknown_formats_are_usage(passed: dict[str, Any]) -> None:
    assert len(FORMATS) == 5
    with pytest.raises(UsageError, match="yaml"):
        rendered(passed, "yaml")
