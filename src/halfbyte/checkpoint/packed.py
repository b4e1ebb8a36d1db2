"""Weights that their source keeps in another form than rows of numbers, seen as the matrices that they stand for."""

from dataclasses import dataclass
from functools import cached_property
from math import prod

from halfbyte.checkpoint.inventory import Entry
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.formats.plain import PLAIN
from halfbyte.formats.storage import WEIGHT, StorageFormat
from halfbyte.formats.turned import Turned
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import STACK_NAMES


@dataclass(frozen=True, slots=False)
class _InParts:
    """form: how it is stored. shape: of what it stands for. parts: its stored tensors, numbers first."""

    form: StorageFormat
    shape: tuple[int, ...]
    parts: dict[str, Tensor]

    @property
    def dtype(self) -> str:
        """Of what it stands for once that is written as it is, rounded once."""
        return self.form.kept_as

    @property
    def name(self) -> str:
        """Of the tensor that holds its numbers."""
        return next(iter(self.parts.values())).name

    @cached_property
    def bytes(self) -> int:
        """In the source, scales included."""
        return sum(tensor.bytes for tensor in self.parts.values())

    @property
    def plain_bytes(self) -> int:
        """Of what it stands for in `dtype`."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    @property
    def shards(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tensor.shard for tensor in self.parts.values()))


@dataclass(frozen=True, slots=False)
class Packed(_InParts):
    """What of `Tensor` whoever reads rows of a matrix asks for. It is decoded to float32, tile by tile."""

    @classmethod
    def of(cls, entry: Entry) -> "Packed":
        return cls(entry.form, entry.shape, dict(entry.tensors))


def check_stack(entry: Entry, roles: RoleMap) -> None:
    """Raise CheckpointError for a stack that is not gate_up_proj [E, H, 2I] or down_proj [E, I, H]."""
    hidden, width = roles.arch.hidden, roles.arch.expert_width
    sides = (hidden, 2 * width) if entry.role.projection == STACK_NAMES[0] else (width, hidden)
    if entry.shape != (roles.num_experts, *sides):
        raise CheckpointError(
            f"{entry.name}: holds a stack of {list(entry.shape)}, wanted {[roles.num_experts, *sides]} (experts, "
            "inputs, outputs)"
        )


def expert_of(entry: Entry, number: int) -> Packed:
    """One expert's matrix [N, K] out of a stack with inputs down, [E, K, N]."""
    _, inputs, outputs = entry.shape
    plain = PLAIN.get(entry.format)
    if plain is None:
        form, spans = entry.form.of_expert(entry.tensors, number)
        parts = {part: entry.tensors[part].part(*span) for part, span in spans.items()}
    else:
        stack = entry.tensors[WEIGHT]
        form, parts = Turned(plain), {WEIGHT: stack.part(number * inputs * outputs, (inputs, outputs))}
    return Packed(form, (outputs, inputs), parts)


@dataclass(frozen=True, slots=False)
class Stacked(_InParts):
    """A stack of experts [E, K, N] as their matrices [N, K], which share their scales."""

    matrices: tuple[Packed, ...]

    @classmethod
    def of(cls, entry: Entry) -> "Stacked":
        matrices = tuple(expert_of(entry, number) for number in range(entry.shape[0]))
        return cls(entry.form, entry.shape, dict(entry.tensors), matrices)

    @property
    def dtype(self) -> str:
        return self.matrices[0].dtype


Source = Tensor | Packed | Stacked
"""Where a matrix comes from, or a stack of them."""

Matrix = Tensor | Packed


def matrices_of(source: Source) -> tuple[Matrix, ...]:
    """The matrices of a stack, or the one that is there."""
    return source.matrices if isinstance(source, Stacked) else (source,)


def kept(source: Source) -> Source:
    """What is copied of a source that is not quantized: of a stack in 16 bits the file's own bytes."""
    if isinstance(source, Stacked) and not source.form.quantized:
        return source.parts[WEIGHT]
    return source


def packed_form(source: Source) -> StorageFormat | None:
    """How numbers are stored that are of fewer bits, or lie in another order than those of a matrix."""
    if isinstance(source, Packed) or (isinstance(source, Stacked) and source.form.quantized):
        return source.form
    return None
