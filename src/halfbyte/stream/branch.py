"""Branches: copies of all sequences that part from the model in one layer, and have other weights there and later.

Before its layer a branch is the model itself, so nothing is computed twice; from its layer on it has rows of its own.
One pass over the weights thus shows what any number of changes do to the output, each by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from halfbyte.stream.skeleton import Linears
from halfbyte.stream.state import Group


class Branch:
    """layer: where it parts. Subclass it and override what changes."""

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def plain(self, layer: int, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Other weights for some linears outside the routed experts; asked in each layer from its own on.

        weights: of all of them in the layer, by the module's name in the checkpoint, [N, K].
        """
        return {}

    def expert(self, layer: int, gate_up: Tensor, down: Tensor) -> tuple[Tensor, Tensor] | None:
        """Other weights for a routed expert, asked for each. gate_up: [2I, H], gate rows first, or up alone, [I, H].
        down: [H, I]."""
        return None


@dataclass(frozen=True)
class Running:
    """Consecutive sequences of the model itself (branch None) or of a branch. origin: the same in the model itself."""

    group: Group
    origin: Group
    branch: Branch | None = None


class Branches:
    """Which sequences are whose: the model's own come first, then those of each branch in the same order."""

    def __init__(self, branches: Sequence[Branch], groups: Sequence[Group], sequences: int, tokens: int) -> None:
        """groups: of the model's own sequences. sequences, tokens: how many there are of these."""
        self._tokens = tokens
        self.own = [Running(group, group) for group in groups]
        self._branched = [
            Running(_shifted(group, sequences * number), group, branch)
            for number, branch in enumerate(branches, 1)
            for group in groups
        ]
        self._numbers = {id(branch): number for number, branch in enumerate(branches, 1)}
        self._count, self._branches = sequences, branches

    def running(self, layer: int) -> list[Running]:
        """Those that go through `layer`, new ones first: they read rows that the model's own may overwrite."""
        new = [one for one in self._branched if one.branch is not None and one.branch.layer == layer]
        old = [one for one in self._branched if one.branch is not None and one.branch.layer < layer]
        return [*new, *self.own, *old]

    def waiting(self, layer: int) -> Iterator[int]:
        """Sequences of branches that have not parted yet."""
        for number, branch in enumerate(self._branches, 1):
            if branch.layer > layer:
                yield from range(number * self._count, (number + 1) * self._count)

    @property
    def branched(self) -> bool:
        return bool(self._branches)

    def parted(self, layer: int) -> list[Branch]:
        """Branches that go through `layer` by themselves."""
        return [branch for branch in self._branches if branch.layer <= layer]

    def rows(self, branch: Branch | None) -> tuple[int, int]:
        """First row of a branch, or of the model itself, and the one behind its last."""
        number = 0 if branch is None else self._numbers[id(branch)]
        return number * self._tokens, (number + 1) * self._tokens


def _shifted(group: Group, by: int) -> Group:
    return Group(group.first + by, group.last + by, group.length, group.mode)


@contextmanager
def swapped(linears: Linears, others: Mapping[str, Tensor]) -> Iterator[None]:
    """Other weights in some linears for a while."""
    modules = {id(linears[name].module): linears[name].module for name in others}
    own = {key: module._parameters["weight"] for key, module in modules.items()}
    for name, weight in others.items():
        module, rows = linears[name].module, linears[name].rows
        if rows is not None:
            part, weight = weight, module.weight.clone()
            weight[rows] = part
        module._parameters["weight"] = nn.Parameter(weight, requires_grad=False)
    try:
        yield
    finally:
        for key, parameter in own.items():
            modules[key]._parameters["weight"] = parameter
