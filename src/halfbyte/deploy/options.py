"""What `deploy` can be asked for; every default stands here alone."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DeployOptions:
    """plan: `plan.json`. platform: `platform.yaml`. also: more checkpoints, of other models, or more plans of one, for
    kinds of GPU that it falls back to, as FOLDER=PLAN. no_gate: ask for no passing decision of these very files; the
    manifests say so."""

    plan: Path | None = None
    platform: Path | None = None
    also: tuple[str, ...] = ()
    no_gate: bool = False
