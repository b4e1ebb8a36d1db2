"""What README says of the code is what the code says of itself."""

import importlib.util
import re
from pathlib import Path

from halfbyte.cli.main import SUMMARIES
from halfbyte.gate.catalogue import all_rules
from halfbyte.models import FAMILIES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def test_the_number_of_rules_and_groups() -> None:
    rules = all_rules()
    groups = {rule.group for rule in rules.values()}
    assert f"{len(rules)} rules in {WORDS[len(groups)]} groups" in README


def test_every_family_that_can_be_quantized_is_named() -> None:
    quantizable = [name for name, family in FAMILIES.items() if family.by_name]
    assert len(quantizable) > 6
    assert [name for name in quantizable if f"`{name}`" not in README] == []


def test_every_command_is_named() -> None:
    assert [name for name in SUMMARIES if f"halfbyte {name}" not in README] == []


def test_it_is_short() -> None:
    assert README.count("\n") <= 150


def test_its_figures_are_those_of_the_results() -> None:
    """`benchmarks/front/readme.py` writes the table; here it is held against the rows, and shown to notice a change."""
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks/front/readme.py")
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    assert readme.rewritten(README) == README
    [row] = [line for line in README.splitlines() if line.startswith("| encode")]
    other = README.replace(row, row.replace("5.40", "5.41"))
    assert readme.rewritten(other) == README != other


def test_links_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
