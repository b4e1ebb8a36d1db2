"""What `gate` can be asked for; every default stands here alone."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from halfbyte.checkpoint.names import REMOTE_SECONDS
from halfbyte.recipes.names import DEFAULT_POLICY

if TYPE_CHECKING:
    from halfbyte.recipes.policy import Policy


@dataclass(frozen=True)
class GateOptions:
    """policy: shipped name, file, or Policy. engine: with `@VERSION` if it is known; None for all of the policy's.
    hardware: `b200x8`. cluster: file of `kubectl get nodes -o json`. depth: `headers`, `scales` (block scales and
    scalars) or `full` (codes, hashes, and the source where given). source: the unquantized checkpoint. workers:
    threads, by default one per processor. today: for waivers. bom: where to write a CycloneDX bill of materials.
    timeout: seconds that a server is given in all.
    """

    policy: "str | Path | Policy" = DEFAULT_POLICY
    engine: str | None = None
    hardware: str | None = None
    cluster: str | Path | None = None
    depth: str = "headers"
    source: str | Path | None = None
    workers: int | None = None
    today: date | None = None
    bom: str | Path | None = None
    timeout: float = REMOTE_SECONDS

    def files_read(self, target: str | Path) -> list[Path]:
        """What no report may be written over: the checkpoint that is judged, and what it is judged by."""
        policy = self.policy if isinstance(self.policy, str | Path) else None
        return [Path(one) for one in (target, self.source, self.cluster, policy) if one is not None]
