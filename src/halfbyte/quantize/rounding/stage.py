"""`quantize --rounding gptq` and `weighted-sweep`: which experts of a job are rounded on data, and what the evidence
says about it.

Needs no torch until it rounds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.documents import Documents
from halfbyte.errors import RecipeError, UnsupportedError, options_called, said
from halfbyte.evidence.dossier import RoundedOnData
from halfbyte.progress import Progress
from halfbyte.quantize.calibrated import ACTIVATIONS, OURS, DataBounds
from halfbyte.quantize.job import Job
from halfbyte.quantize.journal import STAGING
from halfbyte.quantize.options import OnData
from halfbyte.quantize.rounding.store import RoundedExperts
from halfbyte.quantize.units import is_whole_expert

if TYPE_CHECKING:
    from halfbyte.quantize.rounding.experts import Task

FALLBACK: Final = "sweep"
"""Rounds whatever is no routed expert of the main model."""


@dataclass(frozen=True)
class DataRounding:
    """experts: rounded on data. about: data, settings, coverage, for the evidence. rest: how all else is rounded."""

    experts: RoundedExperts
    about: dict[str, Any]
    rest: str = FALLBACK

    def record(self, job: Job) -> RoundedOnData:
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
        return RoundedOnData.model_validate(self.about | {f"rounded_by_{self.rest}": others, "experts": records})


def task_on_data(
    src: Checkpoint, documents: Documents, job: Job, layers: set[int], rounding: OnData, bounds: DataBounds
) -> "Task":
    """What `round_on_data` does, and its key: equal keys give equal experts."""
    from halfbyte.quantize.rounding.experts import task_for  # needs torch; the rest of quantize does not

    return task_for(src, documents, layers, rounding, job.recipe.algorithm, bounds)


def round_on_data(task: "Task", dst: Path, job: Job, progress: Progress) -> DataRounding:
    """Round the routed experts in the staging folder of `dst`; goes on after a kill. Raises HalfbyteError."""
    from halfbyte.quantize.rounding.experts import round_experts  # needs torch

    experts = RoundedExperts(dst, task.key, task.layers, job.shards)
    with options_called(**OURS):
        return DataRounding(experts, round_experts(task, dst / STAGING / ACTIVATIONS, experts, progress))


def rounded_layers(job: Job) -> set[int]:
    """Layers whose routed experts are quantized whole. Raises RecipeError if there is none, UnsupportedError where
    experts share a second scale."""
    if job.roles.family.stacked:
        raise UnsupportedError(
            f"{job.roles.family.model_type}: a layer's experts are one stack with one weight_scale_2; rounding on data "
            "takes them one by one, each with its own",
            hint=said("use {rounding} max or sweep"),
        )
    units = [unit for shard in job.shards for unit in shard.units if is_whole_expert(unit)]
    layers = {layer for unit in units if (layer := unit.linears[0].role.layer) is not None}
    if not layers:
        raise RecipeError(
            f"recipe {job.recipe.name}: quantizes no whole routed expert, and only those are rounded on data",
            hint=said("use {rounding} sweep"),
        )
    return layers
