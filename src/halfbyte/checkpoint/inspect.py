"""`halfbyte inspect`: totals of a checkpoint by role and format, from its headers alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.collection import no_garbage_collection
from halfbyte.checkpoint.inventory import alike, grouped
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.models import roles_of


@dataclass(frozen=True)
class Inspection:
    """parameters: logical weights. bytes: of the tensors on disk. groups: by role, MTP flag and format.

    buffers: names of tensors that are no weights and are counted nowhere.
    """

    model_type: str
    tensors: int
    parameters: int
    bytes: int
    groups: list[dict[str, Any]]
    buffers: list[str]

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.parameters if self.parameters else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "model_type": self.model_type,
            "tensors": self.tensors,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "groups": self.groups,
        } | ({"buffers": self.buffers} if self.buffers else {})


def inspect(path: str | Path) -> Inspection:
    """Read the headers of a checkpoint folder. Raises CheckpointError, UnknownTensorError, UnsupportedError."""
    with no_garbage_collection(), Checkpoint.open(path) as checkpoint:
        roles = roles_of(checkpoint.config)
        groups = grouped(alike(checkpoint.tensors, roles))
        buffers = roles.buffers(checkpoint.tensors)
    return Inspection(
        model_type=roles.family.model_type,
        tensors=sum(group["tensors"] for group in groups),
        parameters=sum(group["parameters"] for group in groups),
        bytes=sum(group["bytes"] for group in groups),
        groups=groups,
        buffers=buffers,
    )
