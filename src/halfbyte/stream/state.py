"""The sequences of a run, and the stores of activations that a pass over them needs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from halfbyte.errors import UsageError
from halfbyte.stream.attention import Mode


@dataclass(frozen=True)
class Group:
    """Consecutive sequences first to last, of one length, that go through attention together."""

    first: int
    last: int
    length: int
    mode: Mode

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True)
class Sequences:
    """lengths: tokens of each. offsets: its first row, and the number of rows at the end."""

    lengths: list[int]
    offsets: list[int]
    sha256: str

    @classmethod
    def of(cls, sequences: Sequence[Tensor]) -> "Sequences":
        """Raises UsageError for no sequences, an empty one, or one that is not int64 [T]."""
        if not sequences:
            raise UsageError("no sequences to run", hint="check that the data files hold documents")
        digest = hashlib.sha256()
        for number, ids in enumerate(sequences):
            if ids.ndim != 1 or ids.is_floating_point() or not len(ids):
                raise UsageError(f"sequence {number}: {ids.dtype} {list(ids.shape)}, wanted token numbers [T]")
            digest.update(ids.cpu().long().numpy().tobytes())
            digest.update(len(ids).to_bytes(8, "little"))
        lengths = [len(ids) for ids in sequences]
        return cls(lengths, [0, *accumulate(lengths)], digest.hexdigest())

    def groups(self, modes: Sequence[Mode], most_tokens: int) -> list[Group]:
        """Neighbours of equal length together, up to `most_tokens`; 0 leaves every sequence alone."""
        groups: list[Group] = []
        for number, (length, mode) in enumerate(zip(self.lengths, modes, strict=True)):
            last = groups[-1] if groups else None
            if last is not None and last.length == length and (last.count + 1) * length <= most_tokens:
                groups[-1] = Group(last.first, number, length, mode)
            else:
                groups.append(Group(number, number, length, mode))
        return groups
