"""What a report is made of: halfbyte.json, and gate.json and plan.json where they lie beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from halfbyte.disk import is_missing
from halfbyte.errors import CheckpointError, UsageError
from halfbyte.evidence.decision import DecisionDocument
from halfbyte.evidence.dossier import Dossier
from halfbyte.evidence.names import DECISION, DOSSIER
from halfbyte.evidence.plan import PlanDocument
from halfbyte.evidence.record import JsonDocument

PLAN = "plan.json"

Document = TypeVar("Document", bound=JsonDocument)


@dataclass(frozen=True)
class Read:
    """files: what was read. decision, plan: None where there is none."""

    dossier: Dossier
    decision: DecisionDocument | None
    plan: PlanDocument | None
    files: tuple[Path, ...]

    @property
    def decided_of_this(self) -> bool:
        """Whether the decision was made of the shards that the dossier names."""
        assert self.decision is not None
        judged = {row.file: row.sha256 or row.stated_sha256 for row in self.decision.checkpoint.shards}
        hashes = self.dossier.shard_hashes()
        return judged.keys() == hashes.keys() and all(
            known is None or known in hashes[file] for file, known in judged.items()
        )


def read(target: str | Path) -> Read:
    """From a folder, or its halfbyte.json. Raises CheckpointError naming the file and the first field at fault."""
    target = Path(target)
    folder = target.parent if target.name == DOSSIER else target
    dossier = Dossier.read(folder / DOSSIER)
    decision, plan = _beside(folder / DECISION, DecisionDocument), _beside(folder / PLAN, PlanDocument)
    names = [DOSSIER, *([DECISION] if decision else []), *([PLAN] if plan else [])]
    return Read(dossier, decision, plan, tuple(folder / name for name in names))


def _beside(path: Path, kind: type[Document]) -> Document | None:
    if is_missing(path):
        return None
    try:
        return kind.read(path)
    except UsageError as error:  # here it is part of what is reported, not an option
        raise CheckpointError(error.message, hint=error.hint) from None
