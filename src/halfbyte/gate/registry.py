"""The rules by id. A rule is a function from facts to findings, with a default severity and a reason to exist."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from halfbyte.errors import UsageError
from halfbyte.gate.findings import Found, Severity

if TYPE_CHECKING:
    from halfbyte.gate.facts import Facts

Depth = Literal["headers", "scales", "full"]
DEPTHS: tuple[Depth, ...] = ("headers", "scales", "full")
Check = Callable[["Facts"], Iterable[Found]]


@dataclass(frozen=True)
class Rule:
    """id: `group.name`. needs: the least depth at which it can answer. rationale: why anyone should care."""

    id: str
    severity: Severity
    rationale: str
    check: Check
    needs: Depth = "headers"

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]


RULES: dict[str, Rule] = {}


def rule(id: str, severity: Severity, rationale: str, needs: Depth = "headers") -> Callable[[Check], Check]:
    """Register a function as a rule."""

    def register(check: Check) -> Check:
        assert id not in RULES, id
        RULES[id] = Rule(id, severity, rationale, check, needs)
        return check

    return register


def all_rules() -> dict[str, Rule]:
    """Every rule, in the order of the groups' files."""
    import halfbyte.gate.rules  # noqa: F401  the groups register themselves

    return RULES


def find_rule(id: str) -> Rule:
    """A rule by id. Raises UsageError with the nearest known id."""
    rules = all_rules()
    if id not in rules:
        near = get_close_matches(id, rules, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "halfbyte gate --explain all lists them"
        raise UsageError(f"no rule is called {id[:80]!r}", hint=hint)
    return rules[id]


def reaches(depth: Depth, needed: Depth) -> bool:
    return DEPTHS.index(depth) >= DEPTHS.index(needed)
