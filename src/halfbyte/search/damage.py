"""What choices of groups cost: KL at the output of each, all measured in one pass over the source's weights.

A choice is a branch (`stream.branch`): it parts from the source in its first rounded layer and runs on from there.
Nothing is approximated: the error of a group's output, what later layers make of it, routers that flip, and how open
each token's continuation is, all end in one number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, cat

from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.resume import fingerprint_of
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.compare.lockstep import Spans
from halfbyte.compare.opening import Opening
from halfbyte.compare.tokens import compare_span
from halfbyte.formats.storage import StorageFormat
from halfbyte.models import roles_of
from halfbyte.models.roles import Role
from halfbyte.progress import Progress
from halfbyte.quantize.linears import Linear, split
from halfbyte.quantize.units import sharing, unit_key
from halfbyte.search.groups import Group
from halfbyte.stream.branch import Branch
from halfbyte.stream.executor import Streamed

TOGETHER = 16
"""Branches whose logits are held beside the source's."""

Choice = Mapping[Group, StorageFormat]


@torch.no_grad()
def measure(
    source: Checkpoint, choices: Sequence[Choice], job: Spans, opening: Opening, progress: Progress
) -> list[float]:
    """Mean KL(source ‖ choice) over the job's tokens, in nats, for each choice. Goes on after a kill."""
    modules, once = _modules(source, {group for choice in choices for group in choice}), _Once()
    first = len(roles_of(source.config).expert_projections) - 1
    distinct = {_sorted(choice): choice for choice in choices if choice}
    branches = [_Rounded(choice, modules, once, first) for choice in distinct.values()]
    if not branches:
        return [0.0] * len(choices)
    key = fingerprint_of({"choices": list(distinct)})
    with opening.models([(source, None)], progress) as (model,):
        model.start(job.ids, key=key, branches=branches)
        each = source.bytes // model.layers
        progress.start(f"{len(branches)} roundings", each * model.layers, each * model.next_layer)
        while model.next_layer < model.layers:
            model.step()
            progress.advance(each)
        damages = dict(zip(distinct, _damages(model, len(branches), job, progress), strict=True))
        return [damages.get(_sorted(choice), 0.0) for choice in choices]


def _sorted(choice: Choice) -> tuple[tuple[str, str], ...]:
    """By which a choice that is asked for twice is measured once."""
    return tuple(sorted((group.label, form.name) for group, form in choice.items()))


class _Once:
    """Rounds what several branches ask for once. Holds the matrices of one expert, or of one layer's other linears."""

    def __init__(self) -> None:
        self._given: dict[tuple[object, ...], tuple[list[Tensor], list[Tensor]]] = {}
        self._layer = (-1, -1)

    def rounded(self, place: tuple[int, int], weights: Sequence[Tensor], form: StorageFormat) -> list[Tensor]:
        """Matrices that share a scale as a format leaves them, in their own dtype. place: layer and first address of
        the expert; -1 for what is no expert. What another place asked for is forgotten."""
        if place != self._layer:
            self._layer, self._given = place, {}
        key = (form.name, *(weight.data_ptr() for weight in weights))
        if key not in self._given:
            found = [one.to(weight) for one, weight in zip(form.rounded_torch(weights), weights, strict=True)]
            self._given[key] = (list(weights), found)  # the weights too, so that no other takes their address
        return self._given[key][1]


class _Rounded(Branch):
    """The source with some groups as their formats leave them."""

    def __init__(self, choice: Choice, modules: Mapping[Group, list[tuple[str, ...]]], once: _Once, first: int) -> None:
        """modules: of each group's plain linears, those together that share a second scale. first: matrices of an
        expert before its down_proj."""
        super().__init__(min(group.layer for group in choice))
        self._modules, self._once, self._first = modules, once, first
        self._experts = {group.layer: form for group, form in choice.items() if group.role is Role.ROUTED_EXPERT}
        self._plain: dict[int, list[tuple[Group, StorageFormat]]] = {}
        for group, form in choice.items():
            self._plain.setdefault(group.layer, []).append((group, form))

    def plain(self, layer: int, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        found: dict[str, Tensor] = {}
        for group, form in self._plain.get(layer, []):
            for names in self._modules[group]:
                rounded = self._once.rounded((layer, -1), [weights[name] for name in names], form)
                found |= dict(zip(names, rounded, strict=True))
        return found

    def expert(self, layer: int, gate_up: Tensor, down: Tensor) -> tuple[Tensor, Tensor] | None:
        if layer not in self._experts:
            return None
        form, place = self._experts[layer], (layer, gate_up.data_ptr())
        first = self._once.rounded(place, list(gate_up.chunk(self._first)), form)
        return cat(first), self._once.rounded(place, [down], form)[0]


def _modules(source: Checkpoint, groups: set[Group]) -> dict[Group, list[tuple[str, ...]]]:
    roles = roles_of(source.config)
    linears, _ = split(inventory(source.tensors, roles), roles)
    found: dict[Group, list[tuple[str, ...]]] = {}
    for group in groups:
        units: dict[object, list[Linear]] = {}
        for linear in linears:
            if group.role is not Role.ROUTED_EXPERT and group.holds(linear.role):
                units.setdefault(unit_key(linear.role), []).append(linear)
        together = [part for unit in units.values() for part in sharing(unit)]
        found[group] = [tuple(linear.role.module for linear in part) for part in together]
    return found


@dataclass(frozen=True)
class _Sequences:
    """The sequences of one branch, or of the source itself, by the numbers that the job gives them."""

    model: Streamed
    first: int

    def logits(self, sequence: int, start: int, stop: int) -> Tensor:
        return self.model.logits(self.first + sequence, start, stop)


def _damages(model: Streamed, branches: int, job: Spans, progress: Progress) -> Iterator[float]:
    count, own = len(job.ids), _Sequences(model, 0)
    progress.start("logits", branches)
    for start in range(0, branches, TOGETHER):
        part = [_Sequences(model, count * (1 + number)) for number in range(start, min(start + TOGETHER, branches))]
        sums, tokens = [0.0] * len(part), 0
        for sequence, (ids, span) in enumerate(zip(job.ids, job.spans, strict=True)):
            measures = compare_span(own, part, sequence, ids, span, model.vocab_size, job.logit_bytes)
            sums = [one + float(found.kl.sum()) for one, found in zip(sums, measures, strict=True)]
            tokens += span.stop - span.start
        progress.advance(len(part))
        yield from (one / tokens for one in sums)
