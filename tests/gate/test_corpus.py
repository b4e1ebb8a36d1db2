"""Every broken checkpoint is refused, by the rule that is about its mistake."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from halfbyte.gate.judge import gate
from halfbyte.recipes.policy import Policy

from .conftest import TINY
from .corpus import BROKEN, Case
from .draft import Draft


def policy_with(changes: dict[str, Any] | None) -> Policy:
    """The default policy with some sections changed."""
    document = yaml.safe_load(Policy.shipped()["default"].read_text("utf-8"))
    for key, value in (changes or {}).items():
        document[key] = {**document[key], **value} if isinstance(document.get(key), dict) else value
    return Policy.parsed(yaml.safe_dump(document), "test")


def options_of(case: Case) -> dict[str, Any]:
    return {key: TINY if value == "tiny" else value for key, value in case.options.items()}


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_broken(case: Case, tiny: Draft, small_mtp: Draft, tmp_path: Path) -> None:
    draft = (tiny if case.base == "tiny" else small_mtp).copy()
    case.change(draft)
    folder = draft.write(tmp_path / case.name)
    decision = gate(folder, policy=policy_with(case.policy), **options_of(case))
    assert decision.verdict == "refused"
    named = {finding.rule for finding in decision.findings if finding.refuses}
    assert case.rule in named
    assert not any("please report it" in finding.found.message for finding in decision.findings)


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(BROKEN) >= 60
    assert len({case.name for case in BROKEN}) == len(BROKEN)
