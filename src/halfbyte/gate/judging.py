"""What a policy makes of what a rule found: left out, harder or softer, waived, undecided."""

from datetime import date

from halfbyte.gate.findings import Finding, Found
from halfbyte.gate.policy import Policy, RuleSetting
from halfbyte.gate.registry import Rule


def applies(policy: Policy, rule: Rule) -> bool:
    return policy.rules.get(rule.id, RuleSetting()).enabled


def finding(policy: Policy, rule: Rule, found: Found, today: date) -> Finding:
    """Severity and waiver. An expired waiver makes a refusal of what it used to cover, whatever the severity."""
    severity = policy.rules.get(rule.id, RuleSetting()).severity or rule.severity
    severity = max(severity, found.at_most, key=("deny", "warn", "info").index)
    waivers = [waiver for waiver in policy.waivers if waiver.covers(rule.id, found)]
    if any(waiver.expires >= today for waiver in waivers):
        return Finding(rule.id, severity, found, waived=True)
    if waivers:
        last = max(waivers, key=lambda waiver: waiver.expires)
        note = f"{found.message} (the waiver of {last.owner} expired on {last.expires})"
        return Finding(rule.id, "deny", Found(note, found.tensor, found.module, found.file))
    if found.missing and severity == "deny":
        return Finding(rule.id, "warn", found, undecided=True)
    return Finding(rule.id, severity, found)
