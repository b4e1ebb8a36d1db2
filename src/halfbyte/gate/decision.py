"""The decision: what was judged, by which policy, with which result. Can be made again and compared."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from halfbyte import __version__
from halfbyte.evidence.decision import (
    DECISION_VERSION,
    DecisionDocument,
    JudgedBy,
    JudgedCheckpoint,
    JudgedWith,
    Tool,
    Verdict,
)
from halfbyte.gate.catalogue import all_rules
from halfbyte.gate.findings import SEVERITIES, Finding
from halfbyte.recipes.names import DEFAULT_POLICY
from halfbyte.recipes.policy import Policy
from halfbyte.recipes.weakening import weakened

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "refused": 1, "undecided": 3}


@dataclass(frozen=True)
class Decision:
    """judged: the checkpoint. judged_with: what else the result depends on."""

    findings: tuple[Finding, ...]
    policy: Policy
    policy_source: str
    judged: JudgedCheckpoint
    judged_with: JudgedWith
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def verdict(self) -> Verdict:
        """One unwaived refusal refuses; else one open question leaves it undecided."""
        if any(finding.refuses for finding in self.findings):
            return "refused"
        return "undecided" if any(finding.undecided and not finding.waived for finding in self.findings) else "pass"

    @property
    def checkpoint(self) -> dict[str, Any]:
        """What was judged, as `gate.json` has it."""
        return self.judged.as_json()

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def document(self) -> DecisionDocument:
        """What `gate.json` holds."""
        return DecisionDocument(
            decision=self.verdict,
            findings=[finding.record() for finding in self.findings],
            checkpoint=self.judged,
            policy=self._judged_by(),
            options=self.judged_with,
            tool=Tool(name="halfbyte", version=__version__),
            time=self.time,
            gate_version=DECISION_VERSION,
        )

    def _judged_by(self) -> JudgedBy:
        """The policy; of one that does not come with Halfbyte also what it asks less of."""
        judged = JudgedBy(
            name=self.policy.name,
            version=self.policy.version,
            sha256=self.policy.sha256(),
            source=self.policy_source,
        )
        if self.policy_source in Policy.shipped():
            return judged
        severities = {id: rule.severity for id, rule in all_rules().items()}
        weakens = weakened(self.policy, Policy.named(DEFAULT_POLICY), severities)
        return JudgedBy(**judged.as_json(), weakens=weakens)

    def as_json(self) -> dict[str, Any]:
        return self.document().as_json()


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Refusals first, then open questions, warnings, the rest; waived ones last in their class."""
    return tuple(sorted(findings, key=lambda f: (f.waived, SEVERITIES.index(f.severity), not f.undecided)))
