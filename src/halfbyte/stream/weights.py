"""The weights of the layer at hand: bytes taken from the reader, moved to the device, decoded, given back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from halfbyte.checkpoint.inventory import Entry
from halfbyte.errors import CheckpointError
from halfbyte.formats.nvfp4 import stored as nvfp4
from halfbyte.formats.nvfp4.stored import INPUT_SCALE
from halfbyte.progress import Progress
from halfbyte.stream.contents import Layer
from halfbyte.stream.reader import Raw, Reader, read_now
from halfbyte.stream.stats import Clock


@dataclass
class ExpertWeights:
    """gate_up: [2I, H], gate rows first, or up alone, [I, H]. down: [H, I]."""

    gate_up: Tensor
    down: Tensor

    def inputs_down(self) -> "ExpertWeights":
        """The same matrices, laid out in memory as their transposes: how they lie decides how a GEMM rounds."""
        return ExpertWeights(self.gate_up.t().contiguous().t(), self.down.t().contiguous().t())


@dataclass(frozen=True)
class ActivationScales:
    """By which a layer's experts round their inputs to NVFP4 (a4-sim): float32 []; None leaves them alone."""

    gate_up: Tensor | None = None
    down: Tensor | None = None


def decoded(entry: Entry, raw: Raw, dtype: torch.dtype) -> Tensor:
    """The weight: `dtype`, entry.shape, on the device of `raw`. It never shares memory with `raw`.

    Raises UnsupportedError for a dtype that no weight has, CheckpointError for damaged scales.
    """
    return entry.form.decode_torch(entry.tensors, raw, dtype)


class Loader:
    """Takes parcels in reading order. On a GPU, copies run on a stream of their own, beside the computation."""

    def __init__(self, reader: Reader, device: torch.device, progress: Progress) -> None:
        self.reader, self.device, self._progress = reader, device, progress
        self._copies: Any = torch.cuda.Stream(device) if device.type == "cuda" else None

    def take(self, clock: Clock) -> tuple[list[Raw], Any]:
        """The next parcel's bytes on the device, and what `give_back` needs to know."""
        waited = self.reader.wait_seconds
        read = self.reader.read_seconds
        raws = self.reader.take()
        clock.stats.wait += self.reader.wait_seconds - waited
        clock.stats.read += self.reader.read_seconds - read
        size = sum(len(buffer) for raw in raws for buffer in raw.values())
        clock.stats.bytes += size
        self._progress.advance(size)
        if self._copies is None:
            return raws, (raws, None)
        with torch.cuda.stream(self._copies), clock.measure("copy"):
            moved = [{part: buffer.to(self.device, non_blocking=True) for part, buffer in raw.items()} for raw in raws]
            event = torch.cuda.Event()
            event.record(self._copies)
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        for raw in moved:
            for buffer in raw.values():
                buffer.record_stream(current)
        return moved, (raws, event)

    def give_back(self, ticket: Any) -> None:
        self.reader.give_back(*ticket)

    def expert(self, entries: Sequence[Entry], dtype: torch.dtype, clock: Clock) -> ExpertWeights:
        """The next parcel, which is an expert."""
        raws, ticket = self.take(clock)
        with clock.measure("compute" if self._copies is not None else "copy"):
            matrices = [decoded(entry, raw, dtype) for entry, raw in zip(entries, raws, strict=True)]
            gate_up = matrices[0] if len(matrices) == 2 else torch.cat(matrices[:2])
        self.give_back(ticket)
        return ExpertWeights(gate_up, matrices[-1])


def expert_activation_scales(layer: Layer, checkpoint: Any, device: torch.device) -> ActivationScales:
    """The largest input_scale over the layer's experts, gate and up: what engines reduce to. None for plain weights.

    Raises CheckpointError where only some experts have one.
    """
    found: dict[str, list[Tensor]] = {"gate_up": [], "down": []}
    for matrices in layer.experts:
        for entry in matrices:
            if not isinstance(entry.form, nvfp4.Nvfp4):
                continue
            group = "down" if entry.role.projection == "down_proj" else "gate_up"
            scale = _scale_now(entry, checkpoint, device)
            if scale is None:
                raise CheckpointError(
                    f"{entry.name}: has no input_scale, which a4-sim needs",
                    hint="quantize with algorithm NVFP4, or use a16",
                )
            found[group].append(scale)
    gate_up, down = (torch.stack(scales).max() if scales else None for scales in found.values())
    return ActivationScales(gate_up, down)


def _scale_now(entry: Entry, checkpoint: Any, device: torch.device) -> Tensor | None:
    if INPUT_SCALE not in entry.tensors:
        return None
    alone = Entry(entry.role, entry.format, (), 4, {INPUT_SCALE: entry.tensors[INPUT_SCALE]})
    return nvfp4.FORMAT.input_scale_torch(alone.tensors, read_now(checkpoint, alone, device))
