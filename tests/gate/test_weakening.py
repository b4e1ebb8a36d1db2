"""A policy of one's own cannot pass for a shipped one, and says what it lets pass."""

from pathlib import Path

import pytest
import yaml

from halfbyte.errors import UsageError
from halfbyte.gate.catalogue import all_rules
from halfbyte.gate.formats import rendered
from halfbyte.gate.judge import gate
from halfbyte.recipes.policy import Policy
from halfbyte.recipes.weakening import weakened

SEVERITIES = {id: rule.severity for id, rule in all_rules().items()}


def written(folder: Path, **changes: object) -> Path:
    document = yaml.safe_load(Policy.shipped()["default"].read_text("utf-8")) | {"name": "ours"}
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(document | changes))
    return path


@pytest.mark.parametrize("name", sorted(Policy.shipped()))
def test_shipped_names_are_reserved(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    path = written(tmp_path, name=name, rules={"selective.role-format": {"enabled": False}})
    with pytest.raises(UsageError, match="calls itself"):
        gate(tiny_folder, policy=path)


def test_a_decision_shows_path_hash_and_what_it_weakens(tiny_folder: Path, tmp_path: Path) -> None:
    path = written(
        tmp_path, rules={"selective.role-format": {"enabled": False}, "supply.remote-code": {"severity": "warn"}}
    )
    document = gate(tiny_folder, policy=path).as_json()
    assert document["policy"]["source"] == str(path)
    assert document["policy"]["weakens"] == [
        "selective.role-format is switched off",
        "supply.remote-code is warn instead of deny",
    ]
    for form in ("table", "html"):
        shown = " ".join(rendered(document, form).split())
        assert "selective.role-format is switched off" in shown
        assert document["policy"]["sha256"][:12] in shown
        assert path.name in shown


def test_shipped_policies_need_no_excuse(tiny_folder: Path) -> None:
    assert "weakens" not in gate(tiny_folder).as_json()["policy"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"numerics": {"input_scale_ruins": 0}}, "input_scale_ruins is 0 instead of 1e-06"),
        ({"numerics": {"saturated_share": 0.9}}, "saturated_share is 0.9 instead of 0.2"),
        ({"numerics": {"weight_scale_2": {"max": 9}}}, "weight_scale_2 has no least"),
        ({"formats": {"roles": {"attention": ["nvfp4"]}}}, "attention may also be nvfp4"),
        ({"hardware": {"fallback": [8, 9]}}, "compute 8 is accepted as a fallback"),
        ({"engines": ["vllm"]}, "sglang is not asked"),
        ({"supply_chain": {}}, "any licence is accepted"),
        (
            {"waivers": [{"rule": "supply.remote-code", "owner": "o", "reason": "r", "expires": "2030-01-01"}]},
            "supply.remote-code is waived",
        ),
    ],
)
def test_what_is_said(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    policy = Policy.from_file(written(tmp_path, **changes))
    said = weakened(policy, Policy.named("default"), SEVERITIES)
    assert any(words in line for line in said), said


def test_stricter_is_no_weakness(tmp_path: Path) -> None:
    policy = Policy.from_file(
        written(tmp_path, numerics={"saturated_share": 0.1, "input_scale_ruins": 1e-4}, required_depth="full")
    )
    assert weakened(policy, Policy.named("default"), SEVERITIES) == []
    assert weakened(Policy.named("default"), Policy.named("default"), SEVERITIES) == []
