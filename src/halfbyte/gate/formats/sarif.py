"""SARIF 2.1.0 (OASIS), for code scanning: one run, one result per finding, waivers as accepted suppressions."""

import json
from typing import Any
from urllib.parse import quote

from halfbyte import __version__
from halfbyte.gate.catalogue import all_rules
from halfbyte.gate.formats.blamed import blamed

LEVELS = {"deny": "error", "warn": "warning", "info": "note"}
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def rendered(document: dict[str, Any]) -> str:
    rules = list(all_rules().values())
    places = {rule.id: i for i, rule in enumerate(rules)}
    run = {
        "tool": {
            "driver": {
                "name": "halfbyte gate",
                "version": __version__,
                "rules": [
                    {
                        "id": rule.id,
                        "shortDescription": {"text": rule.id},
                        "fullDescription": {"text": rule.rationale},
                        "defaultConfiguration": {"level": LEVELS[rule.severity]},
                    }
                    for rule in rules
                ],
            }
        },
        "results": [_result(finding, places) for finding in document["findings"]],
        "invocations": [{"executionSuccessful": True, "endTimeUtc": document["time"].replace("+00:00", "Z")}],
        "properties": {key: document[key] for key in ("decision", "checkpoint", "policy", "options")},
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, ensure_ascii=False) + "\n"


def _result(finding: dict[str, Any], places: dict[str, int]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding["rule"],
        "ruleIndex": places[finding["rule"]],
        "level": LEVELS[finding["severity"]],
        "message": {"text": finding["message"]},
    }
    subject = blamed(finding)
    if subject:
        file = finding.get("file")
        location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": subject}]}
        if file is not None:
            location["physicalLocation"] = {"artifactLocation": {"uri": quote(file)}}
        result["locations"] = [location]
    if finding["waived"]:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": "waived by the policy"}]
    return result
