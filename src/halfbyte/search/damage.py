"""What each group costs by itself: KL at the output when only that group is rounded, all else as in the source.

Several candidates share one pass with the baseline. Routed experts are rounded as they stream by; of other groups a
rounded copy of their shards is written first.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, cat, from_numpy

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.compare.layers import BaseChoices, CandidateChoices
from halfbyte.compare.lockstep import Difference, Lockstep, Spans
from halfbyte.compare.opening import Opening
from halfbyte.formats.storage import StorageFormat
from halfbyte.models.roles import Role, TensorRole
from halfbyte.progress import Progress
from halfbyte.search.groups import Group
from halfbyte.search.rounded import rounded_copy
from halfbyte.stream.routing import ExpertRows

TOGETHER = 4
"""Candidates in one pass: each holds its own activations."""


class RoundedExperts(CandidateChoices):
    """Rounds the routed experts of some layers as they stream by."""

    def __init__(self, base: BaseChoices, layers: frozenset[int], form: StorageFormat) -> None:
        super().__init__(base)
        self._layers, self._form = layers, form

    def expert(
        self, layer: int, expert: int, hidden: Tensor, rows: ExpertRows, gate_up: Tensor, down: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        if layer not in self._layers:
            return None
        rounded = [self._rounded(list(gate_up.chunk(2))), self._rounded([down])]
        return rounded[0].to(gate_up), rounded[1].to(down)

    def _rounded(self, weights: list[Tensor]) -> Tensor:
        """Matrices that share a scale, in float32 (every weight of the source is a float32 number)."""
        arrays = [weight.float().cpu().numpy() for weight in weights]
        return cat([from_numpy(array) for array in self._form.rounded(arrays)])


def measure(
    source: Checkpoint,
    choices: Sequence[Sequence[Group]],
    form: StorageFormat,
    job: Spans,
    opening: Opening,
    scratch: Path,
    progress: Progress,
) -> list[Difference]:
    """The difference to the source of each choice of groups. scratch: an existing folder for rounded copies."""
    found: list[Difference] = []
    for start in range(0, len(choices), TOGETHER):
        part = choices[start : start + TOGETHER]
        progress.note(f"measuring {', '.join(_name(choice) for choice in part)} ({start} of {len(choices)} done)")
        folders = [_copy(source, choice, form, scratch / str(start + number)) for number, choice in enumerate(part)]
        makers = [_observer(choice, form) for choice in part]
        with opening.models([(source.folder, None), *((folder, None) for folder in folders)]) as (base, *others):
            layer_bytes = source.bytes * (1 + len(part)) // base.layers
            found += Lockstep(base, others, job, makers).run(progress, layer_bytes)
        for folder in folders:
            if folder != source.folder:
                for path in folder.iterdir():
                    path.unlink()
    return found


def _copy(source: Checkpoint, choice: Sequence[Group], form: StorageFormat, folder: Path) -> Path:
    """A copy with all rounded that does not stream by; the source itself if that is nothing."""
    rest = [group for group in choice if group.role is not Role.ROUTED_EXPERT]
    if not rest:
        return source.folder

    def chosen(role: TensorRole) -> bool:
        return any(group.holds(role) for group in rest)

    rounded_copy(source, folder, chosen, form)
    return folder


def _observer(choice: Sequence[Group], form: StorageFormat) -> Callable[[BaseChoices], CandidateChoices]:
    layers = frozenset(group.layer for group in choice if group.role is Role.ROUTED_EXPERT)
    return lambda base: RoundedExperts(base, layers, form) if layers else CandidateChoices(base)


def _name(choice: Sequence[Group]) -> str:
    return choice[0].label if len(choice) == 1 else f"{len(choice)} groups"
