"""One decoder layer over all sequences: the three passes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from halfbyte.errors import CheckpointError
from halfbyte.formats.catalogue import NVFP4
from halfbyte.formats.nvfp4 import stored as nvfp4
from halfbyte.modules.experts import Biases
from halfbyte.stream import attention
from halfbyte.stream.branch import Branch, Branches, Running, swapped
from halfbyte.stream.contents import Contents, plain_parcels
from halfbyte.stream.experts import Asked, add_themselves, device_rows, looker, run_expert, run_scored_expert
from halfbyte.stream.observer import Observer
from halfbyte.stream.routing import ExpertRows, Routing
from halfbyte.stream.rows import Rows
from halfbyte.stream.skeleton import Linear, Linears, Skeleton, rounds_its_input, watched
from halfbyte.stream.state import Group
from halfbyte.stream.stats import Clock
from halfbyte.stream.weights import ActivationScales, ExpertWeights, Loader, decoded, expert_activation_scales

PLAIN_PARCEL_BYTES = 64 << 20


@dataclass
class Stores:
    """Rows of all sequences. source and target hold hidden states, the same store where a layer may overwrite them.

    inputs: of the blocks with experts, or of the experts where they stand beside an MLP. outputs: of the experts.
    selection: of the last layer with an indexer, for the sequences that are longer than it selects; None where no layer
    shares. shares: of each residual stream in the experts' outputs; None where there is one stream. latent: inputs of
    the experts; None where they are what `inputs` holds.
    """

    source: Rows
    target: Rows
    inputs: Rows
    outputs: Rows
    selection: Rows | None
    shares: Rows | None
    latent: Rows | None

    @property
    def experts(self) -> Rows:
        """Inputs of the experts."""
        return self.inputs if self.latent is None else self.latent


class LayerRun:
    """Runs layers one after the other, in the order in which the loader's reader reads them."""

    def __init__(
        self,
        contents: Contents,
        skeleton: Skeleton,
        loader: Loader,
        branches: Branches,
        scratch_bytes: int | None,
        simulate: bool,
        tokens: Sequence[Tensor],
    ) -> None:
        """scratch_bytes: of the sparse attention. simulate: round the inputs of NVFP4 linears (a4-sim). tokens: of the
        model's own sequences, int64 [T] each; a branch's have the same."""
        self._contents, self._skeleton, self._loader = contents, skeleton, loader
        self._tokens = tokens
        self._branches, self._scratch_bytes, self._simulate = branches, scratch_bytes, simulate
        self._modes = sorted({one.group.mode for one in branches.own})
        self._linears: Linears = {}
        self._others: dict[int, Mapping[str, Tensor]] = {}  # by id of a branch, in the layer at hand

    def run(self, number: int, stores: Stores, observer: Observer, clock: Clock) -> None:
        with ExitStack() as stack:
            linears = self._linears = self._fill(number, clock, stack)
            with clock.measure("compute"):
                weights = {name: linear.weight for name, linear in linears.items()}
                self._others = {id(one): one.plain(number, weights) for one in self._branches.parted(number)}
            if observer.wants("linear_input"):
                stack.enter_context(watched(linears, lambda name, x: observer.linear_input(number, name, x)))
            moe = bool(self._contents.layers[number].experts)
            choices = len(self._contents.layers[number].experts) + self._contents.roles.arch.zero_experts
            routing = Routing(stores.source.offsets, choices) if moe else None
            with clock.measure("compute"):
                self._attend(number, stores, routing, observer)
            if routing is not None:
                self._experts(number, stores, routing, observer, clock)
                with clock.measure("compute"):
                    self._finish(number, stores, routing, observer)
        self._linears, self._others = {}, {}
        self._skeleton.empty(number)

    def _fill(self, number: int, clock: Clock, stack: ExitStack) -> Linears:
        """Give the layer its weights, all but the experts. Returns its linears by their names in the checkpoint."""
        linears: Linears = {}
        for parcel in plain_parcels(self._contents.layers[number].plain, PLAIN_PARCEL_BYTES):
            raws, ticket = self._loader.take(clock)
            with clock.measure("copy" if self._skeleton.device.type == "cpu" else "compute"):
                for entry, raw in zip(parcel, raws, strict=True):
                    dtype = self._skeleton.dtype_of(self._skeleton.target(entry.name))
                    filled = self._skeleton.fill(entry, decoded(entry, raw, dtype))
                    if isinstance(filled.module, nn.Linear):
                        linears[filled.name] = Linear(filled.module, filled.rows)
                        first = filled.rows is None or filled.rows.start == 0  # the others read the same input
                        if self._simulate and entry.format == NVFP4 and first:
                            handle = rounds_its_input(filled.module, _needed_scale(entry, raw))
                            stack.callback(handle.remove)
            self._loader.give_back(ticket)
        self._skeleton.check_filled(number)
        return linears

    def _attend(self, number: int, stores: Stores, routing: Routing | None, observer: Observer) -> None:
        """First pass. A dense layer is finished by it."""
        for mode in self._modes:
            with attention.using(self._skeleton, mode, self._scratch_bytes):
                for one in self._branches.running(number):
                    if one.group.mode == mode:
                        with self._weights_of(one.branch):
                            self._attend_group(number, one, stores, routing, observer)
        if routing is not None:
            for sequence in self._branches.waiting(number):
                routing.skip(sequence, like=0)

    def _weights_of(self, branch: Branch | None) -> AbstractContextManager[None]:
        """The layer's linears as a branch has them."""
        others = self._others.get(id(branch))
        return swapped(self._linears, others) if others else nullcontext()

    def _attend_group(
        self, number: int, one: Running, stores: Stores, routing: Routing | None, observer: Observer
    ) -> None:
        group, origin = one.group, one.origin if one.branch and one.branch.layer == number else one.group
        observer = observer if one.branch is None else Observer()
        first, last, shape = group.first, group.last, (group.count, group.length)
        observer.sequences(number, first, last)
        hidden = stores.source.read(origin.first, origin.last).view(*shape, -1)
        given, ids = self._selection(number, one, stores), self._ids(number, group)
        with _Indexed(self._skeleton.layers[number]) as indexed:
            if routing is None:
                residual, selection = self._skeleton.run(number, hidden, given, None)
            else:
                before = self._skeleton.before_moe(number, hidden, given, ids)
                residual, x, selection = before.residual, before.x, before.selection
        stores.target.write(residual.flatten(0, 1), first, last)
        if number in self._contents.roles.indexers:
            self._selected(number, group, stores, indexed.output if selection is None else selection, observer)
        if routing is None:
            return
        routed = self._skeleton.route(number, x, ids)
        stores.inputs.write(routed.x if self._skeleton.beside else x.flatten(0, 1), first, last)
        if stores.latent is not None:
            stores.latent.write(routed.x, first, last)
        inputs, index, weights = (part.view(*shape, -1) for part in routed)
        energy = residual.float().square().mean(-1)
        if before.shares is not None and stores.shares is not None:
            stores.shares.write(before.shares.flatten(0, 1), first, last)
            energy = energy / before.shares.float().square().mean(-1)
        for i, sequence in enumerate(range(first, last + 1)):
            routing.put(sequence, index[i], weights[i], energy[i])
            observer.router(number, sequence, index[i])
            observer.moe_input(number, sequence, inputs[i], energy[i])

    def _ids(self, number: int, group: Group) -> Tensor | None:
        """Tokens [B, T] of a group, where the layer chooses experts by them."""
        if number not in self._contents.roles.arch.hash_routed:
            return None
        each = [self._tokens[i % len(self._tokens)] for i in range(group.first, group.last + 1)]
        return torch.stack(each).to(self._skeleton.device)

    def _selection(self, number: int, one: Running, stores: Stores) -> Any:
        """What a layer that shares a selection is given. A branch has one of its own from its first indexer on."""
        indexers = self._contents.roles.indexers
        if stores.selection is None or number in indexers:
            return None
        made = max((layer for layer in indexers if layer < number), default=-1)
        group = one.origin if one.branch is not None and one.branch.layer > made else one.group
        shape = (group.count, group.length)
        stored = stores.selection.read(group.first, group.last)
        indices = stored.view(*shape, -1) if len(stored) else None
        return attention.passed_on(indices, group.mode, shape, self._skeleton.device)

    def _selected(self, number: int, group: Group, stores: Stores, selection: Any, observer: Observer) -> None:
        """Keep what a layer's indexer selected, for later layers and the observer."""
        if selection is None:
            return
        indices = attention.indices_of(selection)
        if stores.selection is not None and indices is not None and indices.shape[-1] < group.length:
            stores.selection.write(indices.flatten(0, 1), group.first, group.last)
        if observer.wants("selection"):
            for i, sequence in enumerate(range(group.first, group.last + 1)):
                own = None if indices is None else indices[i]
                observer.selection(number, sequence, attention.visible(own, group.length, self._skeleton.device))

    def _experts(self, number: int, stores: Stores, routing: Routing, observer: Observer, clock: Clock) -> None:
        """Second pass."""
        layer = self._contents.layers[number]
        device, dtype = self._skeleton.device, self._skeleton.dtype
        join = self._skeleton.join(number)
        scales = ActivationScales()
        if self._simulate:
            scales = expert_activation_scales(layer, self._contents.checkpoint, device)
        with clock.measure("compute"):
            routing.sort()
            stores.outputs.zero()
        with Asked(number, stores.experts, observer) as asked:
            for expert, entries in enumerate(layer.experts):
                weights = self._loader.expert(entries, dtype, clock)
                with clock.measure("compute"):
                    rows = routing.expert(expert)
                    own, rest = rows, list[tuple[ExpertWeights, ExpertRows]]()
                    if self._branches.branched:
                        own = rows.between(*self._branches.rows(None))
                        rest = self._branched(number, weights, rows)
                    for due in asked.put(expert, weights, own, (expert, own, rest)):
                        self._run_expert(number, due, scales, join, stores, observer)
            with clock.measure("compute"):
                for due in asked.rest():
                    self._run_expert(number, due, scales, join, stores, observer)
                for expert in range(len(layer.experts), routing.choices):
                    add_themselves(routing.expert(expert), stores.experts, stores.outputs)

    def _run_expert(
        self,
        number: int,
        due: tuple[Any, ExpertWeights],
        scales: ActivationScales,
        join: Any,
        stores: Stores,
        see: Observer,
    ) -> None:
        (expert, own, rest), weights = due
        together = device_rows(self._skeleton.device)
        look, family = looker(see, number, expert), self._contents.roles.family
        biases = Biases.of(self._skeleton.moe(number).experts, expert)
        if family.stacked:  # as the module's stacks lie
            weights, rest = weights.inputs_down(), [(others.inputs_down(), part) for others, part in rest]
        run: Callable[..., None] = partial(run_expert, biases=biases)
        if family.scores_first:
            run = run_scored_expert
        run(weights, scales, join, own, stores.experts, stores.outputs, together, look)
        for others, part in rest:
            run(others, scales, join, part, stores.experts, stores.outputs, together)

    def _branched(
        self, number: int, weights: ExpertWeights, rows: ExpertRows
    ) -> list[tuple[ExpertWeights, ExpertRows]]:
        """An expert's weights and rows in each branch that goes through this layer."""
        found = []
        for branch in self._branches.parted(number):
            part = rows.between(*self._branches.rows(branch))
            others = branch.expert(number, weights.gate_up, weights.down) if len(part.token) else None
            found.append((weights if others is None else ExpertWeights(*others), part))
        return found

    def _finish(self, number: int, stores: Stores, routing: Routing, observer: Observer) -> None:
        """Third pass."""
        for one in self._branches.running(number):
            first, last, shape = one.group.first, one.group.last, (one.group.count, one.group.length)
            if one.branch is None:
                observer.sequences(number, first, last)
            beside = self._skeleton.beside
            x = (stores.target if beside else stores.inputs).read(first, last).view(*shape, -1)
            index, weights = (
                torch.cat(parts) for parts in zip(*(routing.of(i) for i in range(first, last + 1)), strict=True)
            )
            with self._weights_of(one.branch):
                output = self._skeleton.after_experts(number, x, index, weights, stores.outputs.read(first, last))
            if beside:
                stores.target.write(output.flatten(0, 1), first, last)
                continue
            residual, output = stores.target.read(first, last), output.flatten(0, 1)
            if stores.shares is not None:
                output = (stores.shares.read(first, last).unsqueeze(-1) * output.unsqueeze(-2)).flatten(1)
            stores.target.write(residual + output, first, last)


class _Indexed:
    """Catches what a layer's indexer returns, for models whose layers do not hand it on."""

    def __init__(self, layer: Any) -> None:
        self._indexer = getattr(getattr(layer, "self_attn", None), "indexer", None)
        self.output: Tensor | None = None

    def __enter__(self) -> "_Indexed":
        if self._indexer is not None:
            self._handle = self._indexer.register_forward_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        if self._indexer is not None:
            self._handle.remove()

    def _keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.output = output


def _needed_scale(entry: Any, raw: Any) -> Tensor:
    scale = nvfp4.FORMAT.input_scale_torch(entry.tensors, raw)
    if scale is None:
        raise CheckpointError(
            f"{entry.name}: has no input_scale, which a4-sim needs",
            hint="quantize with algorithm NVFP4, or use activations a16",
        )
    return scale
