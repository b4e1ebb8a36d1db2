"""What a rule is, and where rules register: from facts to findings, with a default severity and a reason to exist."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import Found
from halfbyte.recipes.policy import Depth, Severity

Check = Callable[[Facts], Iterable[Found]]


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
