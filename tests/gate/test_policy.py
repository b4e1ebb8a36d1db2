"""Policies: typed, strict, versioned; severities, waivers, expiry."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from halfbyte.errors import UsageError
from halfbyte.gate.catalogue import all_rules, find_rule
from halfbyte.gate.findings import Found
from halfbyte.gate.judge import gate
from halfbyte.gate.judging import finding
from halfbyte.recipes.policy import Policy, load_policy

from .draft import Draft

REMOTE_CODE = find_rule("supply.remote-code")
TODAY = date(2026, 11, 23)


def policy(text: str) -> Policy:
    read = Policy.parsed("version: 1\nname: p\n" + text, "p.yaml")
    read.check_rules(all_rules(), "p.yaml")
    return read


@pytest.mark.parametrize("name", ["default", "research", "glm-5.2-nvfp4-production"])
def test_shipped_policies_load_and_name_themselves(name: str) -> None:
    assert load_policy(name, all_rules()).name == name
    assert name in Policy.shipped()


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("formts: {}", "unknown setting ('formts')", "did you mean 'formats'?"),
        ("formats: {bits_per_wieght: {min: 4}}", "formats.bits_per_wieght", "did you mean 'bits_per_weight'?"),
        ("formats: {bits_per_weight: {minimum: 4}}", "unknown setting ('minimum')", "did you mean 'min'?"),
        (
            "formats: {roles: {router_expert: [nvfp4]}}",
            "unknown role ('router_expert')",
            "did you mean 'routed_expert'?",
        ),
        (
            "rules: {supply.pickel: {severity: warn}}",
            "no rule is called 'supply.pickel'",
            "did you mean 'supply.pickle'?",
        ),
        ("rules: {supply.pickle: {severity: denny}}", "rules.supply.pickle.severity", "did you mean 'deny'?"),
        ("rules: {supply.pickle: {sevrity: warn}}", "unknown setting ('sevrity')", "did you mean 'severity'?"),
        ("waivers: [{rule: supply.pickle, owner: a, reason: b, expires: 2026-01-01, ticket: 3}]", "'ticket'", "known:"),
        ("waivers: [{rule: supply.pickle, owner: a, reason: b}]", "waivers.0.expires", None),
        ("waivers: [{rule: supply.pickle, owner: '', reason: b, expires: 2026-01-01}]", "waivers.0.owner", None),
        ("supply_chain: {signature: {requird: true}}", "'requird'", "did you mean 'required'?"),
        ("evidence: [{kind: compare, slice: [x]}]", "'slice'", "did you mean 'slices'?"),
        ("required_depth: ful", "required_depth", "did you mean 'full'?"),
        ("numerics: {saturated_share: 2}", "numerics.saturated_share", None),
        ("{", "not valid YAML", None),
    ],
)
def test_mistakes_are_named(text: str, words: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as raised:
        policy(text)
    assert words in raised.value.message
    assert "p.yaml" in raised.value.message
    assert hint is None or hint in str(raised.value.hint)


@pytest.mark.parametrize("text", ["version: 2\nname: p\n", "name: p\n", "version: 1\n", "[1]", ""])
def test_version_and_name_are_demanded(text: str) -> None:
    with pytest.raises(UsageError):
        Policy.parsed(text, "p.yaml")


def test_unknown_policies_get_a_suggestion() -> None:
    with pytest.raises(UsageError) as raised:
        load_policy("defualt", all_rules())
    assert raised.value.hint == "did you mean 'default'?"


def test_the_hash_is_of_the_meaning() -> None:
    one = Policy.parsed("version: 1\nname: p\ndescription: x # y\n", "a")
    other = Policy.parsed("description: x\nname: p\nversion: 1\n", "b")
    assert one.sha256() == other.sha256() != Policy.parsed("version: 1\nname: q\n", "a").sha256()


def waived(expires: str, match: str = "*") -> Policy:
    row = f"{{rule: supply.remote-code, owner: o, reason: r, expires: {expires}, match: '{match}'}}"
    return policy(f"waivers: [{row}]")


FOUND = Found("auto_map", file="config.json")


def test_a_waiver_holds_until_its_last_day() -> None:
    assert finding(waived("2026-11-23"), REMOTE_CODE, FOUND, TODAY).waived
    assert not finding(waived("2026-11-23"), REMOTE_CODE, FOUND, TODAY).refuses
    late = finding(waived("2026-11-22"), REMOTE_CODE, FOUND, TODAY)
    assert late.refuses
    assert "expired on 2026-11-22" in late.found.message


def test_an_expired_waiver_refuses_even_what_was_a_warning() -> None:
    text = "rules: {supply.remote-code: {severity: warn}}\n"
    text += "waivers: [{rule: supply.remote-code, owner: o, reason: r, expires: 2020-01-01}]"
    assert finding(policy(text), REMOTE_CODE, FOUND, TODAY).refuses
    assert not finding(policy(text.splitlines()[0]), REMOTE_CODE, FOUND, TODAY).refuses


def test_a_waiver_covers_what_it_matches() -> None:
    assert finding(waived("2999-01-01", "config.*"), REMOTE_CODE, FOUND, TODAY).waived
    assert finding(waived("2999-01-01", "tokenizer*"), REMOTE_CODE, FOUND, TODAY).refuses


def test_missing_evidence_leaves_it_open_unless_the_policy_only_warns() -> None:
    rule, found = find_rule("evidence.exists"), Found("none", missing=True)
    assert finding(policy(""), rule, found, TODAY).undecided
    warned = finding(policy("rules: {evidence.exists: {severity: warn}}"), rule, found, TODAY)
    assert (warned.undecided, warned.severity) == (False, "warn")


def test_severities_and_switches(tiny: Draft, tmp_path: Path) -> None:
    draft = tiny.copy()
    draft.side["model.bin"] = b"x"
    folder = draft.write(tmp_path / "x")
    assert gate(folder).verdict == "refused"
    for setting in ("severity: warn", "severity: info", "enabled: false"):
        assert gate(folder, policy=policy(f"rules: {{supply.pickle: {{{setting}}}}}")).verdict == "pass"


def test_every_rule_says_why() -> None:
    for rule in all_rules().values():
        assert rule.rationale.endswith("."), rule.id
        assert rule.id == f"{rule.group}.{rule.id.partition('.')[2]}"
        assert len(rule.rationale) > 40, rule.id


def test_a_policy_survives_its_own_dump() -> None:
    for name in Policy.shipped():
        loaded = load_policy(name, all_rules())
        assert Policy.parsed(yaml.safe_dump(loaded.model_dump(mode="json")), name) == loaded
