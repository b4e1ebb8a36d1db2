"""All rules by id."""

from difflib import get_close_matches

import halfbyte.gate.rules  # noqa: F401  the groups register themselves
from halfbyte.errors import UsageError, said
from halfbyte.gate.registry import RULES, Rule


def all_rules() -> dict[str, Rule]:
    """Every rule, in the order of the groups' files."""
    return RULES


def find_rule(id: str) -> Rule:
    """A rule by id. Raises UsageError with the nearest known id."""
    rules = all_rules()
    if id not in rules:
        near = get_close_matches(id, rules, n=1)
        hint = f"did you mean {near[0]!r}?" if near else said("halfbyte gate {explain} all lists them")
        raise UsageError(f"no rule is called {id[:80]!r}", hint=hint)
    return rules[id]
