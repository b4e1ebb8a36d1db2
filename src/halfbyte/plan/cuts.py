"""Whether the packed matrices survive being cut over ranks: a block of 16 must stay whole, kernels want more."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from halfbyte.engines.alignment import FP8_TILE, ROW_PARALLEL, Cut
from halfbyte.errors import UsageError
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.models.architecture import Architecture
from halfbyte.models.roles import Role
from halfbyte.plan.deployment import Deployment
from halfbyte.plan.weight_groups import WeightGroup
from halfbyte.plan.weights import divisor

PACKED = ("nvfp4", "nvfp4-w4a16")
TILED = ("fp8-block", "fp8-block-e8m0")


class CutGroup(NamedTuple):
    """One kind of matrix and how its columns are cut."""

    role: Role
    format: str
    cut: Cut


def cuts(groups: Sequence[WeightGroup], arch: Architecture, d: Deployment) -> Iterator[CutGroup]:
    """Each kind of packed matrix whose columns tensor parallelism cuts, once; of FP8 blocks the routed experts."""
    seen = set()
    for group in groups:
        expert = group.role is Role.ROUTED_EXPERT
        packed = group.format in PACKED or (group.format in TILED and expert)
        if not packed or group.projection not in ROW_PARALLEL or (group.mtp and not d.mtp_tokens):
            continue
        ranks = d.layout.expert_width if expert else divisor(group, arch, d.layout)
        found = CutGroup(group.role, group.format, Cut(group.inputs, ranks))
        if ranks > 1 and found not in seen:
            seen.add(found)
            yield found


def check_cuts(groups: Sequence[WeightGroup], arch: Architecture, d: Deployment) -> None:
    """Raise UsageError where a rank would get a part of a block of scales, with the layouts that keep it whole."""
    for role, storage, cut in cuts(groups, arch, d):
        if storage in TILED:
            if cut.splits_a_tile and not d.facts.takes_cut_tiles(d.gpu):
                what = f"which cuts a tile of {FP8_TILE}: {d.facts.title} {d.facts.read} refuses that"
                raise UsageError(f"{role} in FP8 blocks: {cut}, {what}", hint=_hint(role, cut, FP8_TILE, d))
        elif cut.splits_a_block:
            what = f"which cuts a block of {BLOCK_SIZE}: no engine loads that"
            raise UsageError(f"{role} in NVFP4: {cut}, {what}", hint=_hint(role, cut, BLOCK_SIZE, d))


def _hint(role: Role, cut: Cut, block: int, d: Deployment) -> str:
    possible = f"possible: {', '.join(map(str, whole_cuts(cut.columns, block)))} ranks"
    if role is not Role.ROUTED_EXPERT:
        return possible
    return f"whole experts on each rank: --ep {d.layout.expert_width * d.layout.expert_count}; {possible}"


def whole_cuts(columns: int, block: int = BLOCK_SIZE) -> list[int]:
    """Numbers of ranks that leave whole blocks."""
    blocks = columns // block if columns % block == 0 else 0
    return [ranks for ranks in range(1, blocks + 1) if blocks % ranks == 0]


def cut_warnings(groups: Sequence[WeightGroup], arch: Architecture, d: Deployment) -> list[str]:
    """Cuts that some kernels pad or refuse, with engine and version."""
    found = []
    for role, storage, cut in cuts(groups, arch, d):
        if role is Role.ROUTED_EXPERT and storage in PACKED and cut.off_the_kernels_step:
            seen = (d.facts.cut_gated,) if arch.gated_experts else ()
            kernels = cut.by_kernels(f"{d.facts.title} {d.facts.read}", seen)
            found.append(f"{role} in NVFP4: {kernels}; --ep keeps experts whole")
    return found
