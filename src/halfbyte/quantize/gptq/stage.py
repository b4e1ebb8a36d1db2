"""`quantize --rounding gptq`: which experts of a job are rounded on data, and what the evidence says about it.

Needs no torch until it rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from halfbyte.errors import RecipeError
from halfbyte.progress import Progress
from halfbyte.quantize.calibrated import Bounds
from halfbyte.quantize.gptq.store import FOLDER, RoundedExperts
from halfbyte.quantize.job import Job
from halfbyte.quantize.journal import STAGING
from halfbyte.quantize.work import is_whole_expert

FALLBACK: Final = "sweep"
"""Rounds whatever is no routed expert of the main model."""


@dataclass(frozen=True)
class DataRounding:
    """experts: rounded on data. about: data, settings, coverage, for the evidence. rest: how all else is rounded."""

    experts: RoundedExperts
    about: dict[str, Any]
    rest: str = FALLBACK

    def evidence(self, job: Job) -> dict[str, Any]:
        """Method, data, and by layer and expert tokens and output error on held-out tokens."""
        others = sorted(
            {
                str(linear.role.role) + (" (MTP)" if linear.role.mtp else "")
                for shard in job.shards
                for unit in shard.units
                if not is_whole_expert(unit)
                for linear in unit.linears
            }
        )
        records = {str(layer): list(found.values()) for layer, found in self.experts.records().items()}
        return self.about | {"rounded_by_" + self.rest: others, "experts": records}


def round_on_data(
    src: Path, dst: Path, data: Sequence[str], job: Job, bounds: Bounds, progress: Progress | None
) -> DataRounding:
    """Round the job's routed experts in the staging folder; goes on after a kill. Raises HalfbyteError."""
    from halfbyte.quantize.gptq.run import open_task, round_experts  # needs torch; the rest of quantize does not

    task = open_task(src, data, rounded_layers(job), job.recipe.algorithm, bounds)
    experts = RoundedExperts(dst / STAGING / FOLDER, task.key, task.layers)
    return DataRounding(experts, round_experts(task, dst / STAGING, experts, progress))


def rounded_layers(job: Job) -> set[int]:
    """Layers whose routed experts are quantized whole. Raises RecipeError if there is none."""
    units = [unit for shard in job.shards for unit in shard.units if is_whole_expert(unit)]
    layers = {layer for unit in units if (layer := unit.linears[0].role.layer) is not None}
    if not layers:
        raise RecipeError(
            f"recipe {job.recipe.name}: quantizes no whole routed expert, which gptq rounds",
            hint="use --rounding sweep",
        )
    return layers


def staged_bytes(dst: Path) -> int:
    """Of rounded experts that wait for their shards."""
    return sum(path.stat().st_size for path in (dst / STAGING / FOLDER).glob("*.codes"))
