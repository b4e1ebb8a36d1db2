"""`gate.json`, a decision of the gate: what was judged, by which policy, with which result."""

from typing import ClassVar, Literal

from halfbyte.errors import UsageError
from halfbyte.evidence.record import JsonDocument, Record

DECISION_VERSION = 1
Verdict = Literal["pass", "refused", "undecided"]


class FindingRecord(Record):
    """tensor, module, file: the one to blame, at most one of them."""

    rule: str
    severity: str
    message: str
    tensor: str | None = None
    module: str | None = None
    file: str | None = None
    waived: bool


class ShardHashes(Record):
    """sha256: of the bytes, where they were read. stated_sha256: by halfbyte.json or the hub."""

    file: str
    bytes: int | None
    header_sha256: str | None
    sha256: str | None
    stated_sha256: str | None


class JudgedCheckpoint(Record):
    """fingerprint: of all headers and of the files that decide what is loaded."""

    target: str
    model_type: str | None
    tensors: int
    bytes: int
    fingerprint: str
    shards: list[ShardHashes]
    files: dict[str, str]


class JudgedBy(Record):
    """The policy. source: its name or file, as it was given. sha256: of its meaning. weakens: in which respects it
    asks less than the shipped default; absent for shipped ones."""

    name: str
    version: int
    sha256: str
    source: str
    weakens: list[str] | None = None


class JudgedWith(Record):
    """Options on which the result depends."""

    engine: str | None = None
    hardware: str | None = None
    cluster: str | None = None
    depth: str = "headers"
    source: str | None = None


class Tool(Record):
    """What decided."""

    name: str
    version: str


class DecisionDocument(JsonDocument):
    """The whole of `gate.json`. time: ISO 8601, UTC."""

    what: ClassVar = "a decision"
    version: ClassVar = ("gate_version", DECISION_VERSION)
    hint: ClassVar = "halfbyte gate writes it"
    error: ClassVar = UsageError

    decision: Verdict
    findings: list[FindingRecord]
    checkpoint: JudgedCheckpoint
    policy: JudgedBy
    options: JudgedWith
    tool: Tool
    time: str
    gate_version: int

    def differences(self, now: "DecisionDocument") -> list[str]:
        """Why this decision does not hold for what is there now; empty if it does."""
        found = []
        for what, name, was, is_now in (
            ("the checkpoint is another one", "fingerprint", self.checkpoint.fingerprint, now.checkpoint.fingerprint),
            ("the policy is another one", "sha256", self.policy.sha256, now.policy.sha256),
        ):
            if was != is_now:
                found.append(f"{what}: {name} was {was[:80]}, is {is_now}")
        before = {row.file: row.sha256 for row in self.checkpoint.shards}
        for row in now.checkpoint.shards:
            was_hash = before.get(row.file)
            if was_hash is not None and row.sha256 is not None and was_hash != row.sha256:
                found.append(f"{row.file}: SHA-256 was {was_hash[:80]}, is {row.sha256}")
        if self.decision != now.decision:
            found.append(f"the decision was {self.decision}, is now {now.decision}")
        if not found and self.findings != now.findings:
            found.append("the findings differ from those of the same rules run again")
        return found
