"""What rules say. A rule yields `Found`; the policy makes a `Finding` of it: severity, waiver."""

from dataclasses import dataclass
from typing import get_args

from halfbyte.evidence.decision import FindingRecord
from halfbyte.recipes.policy import Severity

SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True)
class Found:
    """One thing a rule noticed. tensor, module, file: the one to blame, at most one of them.

    missing: evidence is absent, so the question stays open (undecided) instead of being answered with no.
    at_most: a case of the rule that the policy shall not treat as harder than this.
    """

    message: str
    tensor: str | None = None
    module: str | None = None
    file: str | None = None
    missing: bool = False
    at_most: Severity = "deny"

    @property
    def subject(self) -> str:
        return self.tensor or self.module or self.file or ""


@dataclass(frozen=True)
class Finding:
    """A `Found` under a policy. undecided: it leaves the decision open; reported as a warning."""

    rule: str
    severity: Severity
    found: Found
    waived: bool = False
    undecided: bool = False

    @property
    def refuses(self) -> bool:
        return self.severity == "deny" and not self.waived

    def record(self) -> FindingRecord:
        """The published form: `tensor`, `module` or `file` only where one is to blame."""
        blamed = {key: value for key in ("tensor", "module", "file") if (value := getattr(self.found, key)) is not None}
        subject = {key: printable(value) for key, value in list(blamed.items())[:1]}
        return FindingRecord(
            rule=self.rule, severity=self.severity, message=self.found.message, **subject, waived=self.waived
        )


def printable(text: str, limit: int = 300) -> str:
    """A name from a hostile file, safe to print: no control characters, no lone surrogates, bounded."""
    if len(text) > limit:
        text = text[:limit] + "..."
    if text.isprintable():
        try:
            text.encode()
            return text
        except UnicodeEncodeError:
            pass
    return text.encode("unicode_escape", "backslashreplace").decode("ascii")


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
