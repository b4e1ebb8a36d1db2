"""What a policy makes of what a rule found: left out, harder or softer, waived, undecided."""

from datetime import date
from fnmatch import fnmatchcase

from halfbyte.gate.findings import SEVERITIES, Finding, Found
from halfbyte.gate.registry import Rule
from halfbyte.recipes.policy import Policy, RuleSetting, Waiver


def applies(policy: Policy, rule: Rule) -> bool:
    return policy.rules.get(rule.id, RuleSetting()).enabled


def covers(waiver: Waiver, rule: Rule, found: Found) -> bool:
    return waiver.rule == rule.id and fnmatchcase(found.subject, waiver.match)


def finding(policy: Policy, rule: Rule, found: Found, today: date) -> Finding:
    """Severity and waiver. An expired waiver makes a refusal of what it used to cover, whatever the severity."""
    severity = policy.rules.get(rule.id, RuleSetting()).severity or rule.severity
    severity = max(severity, found.at_most, key=SEVERITIES.index)
    waivers = [waiver for waiver in policy.waivers if covers(waiver, rule, found)]
    if any(waiver.expires >= today for waiver in waivers):
        return Finding(rule.id, severity, found, waived=True)
    if waivers:
        last = max(waivers, key=lambda waiver: waiver.expires)
        note = f"{found.message} (the waiver of {last.owner} expired on {last.expires})"
        return Finding(rule.id, "deny", Found(note, found.tensor, found.module, found.file))
    if found.missing and severity == "deny":
        return Finding(rule.id, "warn", found, undecided=True)
    return Finding(rule.id, severity, found)
