"""What README says of the code is what the code says of itself."""

from pathlib import Path

from halfbyte.gate.catalogue import all_rules
from halfbyte.models import FAMILIES

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def test_the_number_of_rules_and_groups() -> None:
    rules = all_rules()
    groups = {rule.group for rule in rules.values()}
    assert f"{len(rules)} rules in {WORDS[len(groups)]} groups" in README


def test_every_family_that_can_be_quantized_is_named() -> None:
    quantizable = [name for name, family in FAMILIES.items() if not family.paper_only]
    assert len(quantizable) > 6
    assert [name for name in quantizable if f"`{name}`" not in README] == []
