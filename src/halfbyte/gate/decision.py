"""The decision, `gate.json`: what was judged, by which policy, with which result. Can be made again and compared."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from halfbyte import __version__
from halfbyte.errors import OutputError, UsageError
from halfbyte.gate.findings import SEVERITIES, Finding
from halfbyte.recipes.policy import Policy

Verdict = Literal["pass", "refused", "undecided"]
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "refused": 1, "undecided": 3}
DECISION_VERSION = 1


@dataclass(frozen=True)
class Decision:
    """checkpoint: its hashes (`hashes.checkpoint_hashes`). options: what else the result depends on."""

    findings: tuple[Finding, ...]
    policy: Policy
    policy_source: str
    checkpoint: dict[str, Any]
    options: dict[str, Any]
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def verdict(self) -> Verdict:
        """One unwaived refusal refuses; else one open question leaves it undecided."""
        if any(finding.refuses for finding in self.findings):
            return "refused"
        return "undecided" if any(finding.undecided and not finding.waived for finding in self.findings) else "pass"

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def as_json(self) -> dict[str, Any]:
        return {
            "decision": self.verdict,
            "findings": [finding.as_json() for finding in self.findings],
            "checkpoint": self.checkpoint,
            "policy": {
                "name": self.policy.name,
                "version": self.policy.version,
                "sha256": self.policy.sha256(),
                "source": self.policy_source,
            },
            "options": self.options,
            "tool": {"name": "halfbyte", "version": __version__},
            "time": self.time,
            "gate_version": DECISION_VERSION,
        }

    def write(self, path: Path) -> None:
        """Write gate.json whole or not at all. Raises OutputError."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Refusals first, then open questions, warnings, the rest; waived ones last in their class."""
    return tuple(sorted(findings, key=lambda f: (f.waived, SEVERITIES.index(f.severity), not f.undecided)))


def read_decision(path: str | Path) -> dict[str, Any]:
    """A gate.json. Raises UsageError naming the file and what is wrong with it."""
    try:
        document = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as a decision: {str(error)[:200]}") from None
    version = document.get("gate_version") if isinstance(document, dict) else None
    if version != DECISION_VERSION:
        raise UsageError(f"{path}: gate_version {version}, wanted {DECISION_VERSION}", hint="halfbyte gate writes it")
    wanted = {"decision": str, "findings": list, "checkpoint": dict, "policy": dict, "options": dict}
    for key, kind in wanted.items():
        if not isinstance(document.get(key), kind):
            raise UsageError(f"{path}: the decision has no sound {key!r}")
    return dict(document)


def differences(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Why a recorded decision does not hold for what is there now; empty if it does."""
    found = []
    for what, key, field_name in (
        ("the checkpoint is another one", "checkpoint", "fingerprint"),
        ("the policy is another one", "policy", "sha256"),
    ):
        was, is_now = recorded[key].get(field_name), now[key][field_name]
        if was != is_now:
            found.append(f"{what}: {field_name} was {str(was)[:80]}, is {is_now}")
    was_shards = recorded["checkpoint"].get("shards")
    shards = (
        {row.get("file"): row for row in was_shards if isinstance(row, dict)} if isinstance(was_shards, list) else {}
    )
    for row in now["checkpoint"]["shards"]:
        before = shards.get(row["file"], {}).get("sha256")
        if before is not None and row["sha256"] is not None and before != row["sha256"]:
            found.append(f"{row['file']}: SHA-256 was {before}, is {row['sha256']}")
    if recorded["decision"] != now["decision"]:
        found.append(f"the decision was {str(recorded['decision'])[:40]}, is now {now['decision']}")
    if not found and recorded["findings"] != now["findings"]:
        found.append("the findings differ from those of the same rules run again")
    return found
