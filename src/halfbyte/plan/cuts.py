"""Whether the packed matrices survive being cut over ranks: a block of 16 must stay whole, kernels want more."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from halfbyte.engines.alignment import EXPERT_WIDTH_STEP, ROW_PARALLEL, Cut
from halfbyte.errors import UsageError
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.models.architecture import Architecture
from halfbyte.models.roles import Role
from halfbyte.plan.deployment import Deployment
from halfbyte.plan.weight_groups import WeightGroup
from halfbyte.plan.weights import divisor

PACKED = ("nvfp4", "nvfp4-w4a16")


class CutGroup(NamedTuple):
    """One kind of matrix and how its columns are cut."""

    role: Role
    cut: Cut


def cuts(groups: Sequence[WeightGroup], arch: Architecture, d: Deployment) -> Iterator[CutGroup]:
    """Each kind of packed matrix whose columns tensor parallelism cuts, once."""
    seen = set()
    for group in groups:
        if group.format not in PACKED or group.projection not in ROW_PARALLEL or (group.mtp and not d.mtp_tokens):
            continue
        expert = group.role is Role.ROUTED_EXPERT
        ranks = d.layout.expert_width if expert else divisor(group, arch, d.layout)
        found = CutGroup(group.role, Cut(group.shape[-1], ranks))
        if found not in seen:
            seen.add(found)
            yield found


def check_cuts(groups: Sequence[WeightGroup], arch: Architecture, d: Deployment) -> None:
    """Raise UsageError where a rank would get a part of a block of 16, with the layouts that keep it whole."""
    for role, cut in cuts(groups, arch, d):
        if cut.splits_a_block:
            hint = f"possible: {', '.join(map(str, whole_cuts(cut.columns)))} ranks"
            if role is Role.ROUTED_EXPERT:
                hint = f"whole experts on each rank: --ep {d.layout.expert_width * d.layout.expert_count}; {hint}"
            raise UsageError(
                f"{role} in NVFP4: {cut}, which cuts a block of {BLOCK_SIZE}: no engine loads that", hint=hint
            )


def whole_cuts(columns: int) -> list[int]:
    """Numbers of ranks that leave whole blocks."""
    return [ranks for ranks in range(1, columns // BLOCK_SIZE + 1) if not Cut(columns, ranks).splits_a_block]


def cut_warnings(groups: Sequence[WeightGroup], arch: Architecture, d: Deployment) -> list[str]:
    """Cuts that some kernels pad or refuse, with engine and version."""
    found = []
    for role, cut in cuts(groups, arch, d):
        if role is Role.ROUTED_EXPERT and cut.ranks > 1 and cut.off_the_kernels_step:
            found.append(
                f"{role} in NVFP4: {cut}, no multiple of {EXPERT_WIDTH_STEP}: some FP4 kernels of {d.facts.title} "
                f"{d.facts.read} pad it, others refuse; --ep keeps experts whole"
            )
    return found
