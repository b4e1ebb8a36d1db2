"""The per-tensor scales of NVFP4, which GGUF keeps as float32 vectors beside the blocks."""

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.inventory import Entry
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import CheckpointError


def scale_vector(checkpoint: Checkpoint, entries: list[Entry], part: str) -> npt.NDArray[np.float32] | None:
    """`weight_scale_2` or `input_scale` of some matrices: float32 [len(entries)], or None where none has it.

    Raises CheckpointError, naming the tensor, for a scale that is missing on some, negative, zero or not finite. A
    `weight_scale_2` of zero is let through: it says that the matrix is zero.
    """
    having = [entry for entry in entries if part in entry.tensors]
    if not having:
        return None
    if len(having) < len(entries):
        without = next(entry for entry in entries if part not in entry.tensors)
        raise CheckpointError(f"{without.name}: has no {part}, but {having[0].name} has", hint="quantize again")
    values = np.empty(len(entries), np.float32)
    for entry, slot in zip(entries, values.view(np.uint8).reshape(-1, 4), strict=True):
        checkpoint.read_into(entry.tensors[part], slot.data)
    sound = np.isfinite(values) & (values >= 0 if part == "weight_scale_2" else values > 0)
    if not sound.all():
        worst = int(np.flatnonzero(~sound)[0])
        raise CheckpointError(
            f"{entries[worst].tensors[part].name}: is {values[worst]}, wanted a finite positive number",
            hint="the checkpoint is damaged or was quantized wrongly",
        )
    return values
