"""JUnit XML, for CI: every rule a test case, failed if it refuses, the findings in its text."""

from typing import Any
from xml.etree import ElementTree

from halfbyte.gate.catalogue import all_rules
from halfbyte.gate.depths import DEPTHS


def rendered(document: dict[str, Any]) -> str:
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for finding in document["findings"]:
        by_rule.setdefault(finding["rule"], []).append(finding)
    depth = DEPTHS.index(document["options"]["depth"])
    root = ElementTree.Element("testsuites", name="halfbyte gate")
    suite = ElementTree.SubElement(root, "testsuite", name=f"policy {document['policy']['name']}")
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for rule in all_rules().values():
        case = ElementTree.SubElement(suite, "testcase", classname=f"gate.{rule.group}", name=rule.id, time="0")
        counts["tests"] += 1
        findings = by_rule.get(rule.id, [])
        refusing = [finding for finding in findings if finding["severity"] == "deny" and not finding["waived"]]
        lines = "\n".join(f"{finding['severity']}: {_plain(finding['message'])}" for finding in findings)
        if refusing:
            counts["failures"] += 1
            failure = ElementTree.SubElement(case, "failure", type="refused", message=_plain(refusing[0]["message"]))
            failure.text = lines
        elif DEPTHS.index(rule.needs) > depth:
            counts["skipped"] += 1
            ElementTree.SubElement(case, "skipped", message=f"needs depth {rule.needs}")
        elif lines:
            ElementTree.SubElement(case, "system-out").text = lines
    verdict = ElementTree.SubElement(suite, "testcase", classname="gate", name="decision", time="0")
    counts["tests"] += 1
    if document["decision"] == "undecided":
        counts["errors"] += 1
        error = ElementTree.SubElement(verdict, "error", type="undecided", message="evidence is missing")
        error.text = "\n".join(_plain(f["message"]) for f in document["findings"] if f["severity"] == "warn")
    elif document["decision"] == "refused":
        counts["failures"] += 1
        ElementTree.SubElement(verdict, "failure", type="refused", message="refused by the policy")
    for element in (root, suite):
        for key, value in counts.items():
            element.set(key, str(value))
    suite.set("timestamp", document["time"].partition("+")[0])
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _plain(text: str) -> str:
    """Without characters that XML 1.0 cannot hold."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
