"""The observer that rounds: expert by expert, each on activations of the layers already rounded."""

import numpy as np
import torch
from torch import Tensor

from halfbyte.calibrate.rule import Rule
from halfbyte.calibrate.watch import Watch
from halfbyte.nvfp4.reference import Encoded
from halfbyte.quantize.gptq.columns import Rounded
from halfbyte.quantize.gptq.expert import Activation, output_errors, rounded_expert
from halfbyte.quantize.gptq.grid import packed
from halfbyte.quantize.gptq.settings import Settings
from halfbyte.quantize.gptq.store import RoundedExperts, StoredExpert
from halfbyte.runtime.values import dequantized

LEAST_DOCUMENTS = 8
"""With fewer none is held out."""


class Rounder(Watch):
    """Rounds routed experts of the chosen layers; also watches every linear's input, as calibration does.

    lengths: tokens of each sequence. Every `settings.held_out`-th sequence is kept out of all Hessians: on its tokens
    the error of an expert's output is measured.
    """

    def __init__(
        self,
        num_experts: int,
        layers: set[int],
        lengths: list[int],
        act: Activation,
        settings: Settings,
        store: RoundedExperts,
    ) -> None:
        super().__init__(num_experts, Rule("max"))
        self._chosen, self._act, self._settings, self._store = layers, act, settings, store
        every = min(settings.held_out, max(LEAST_DOCUMENTS, len(lengths)))
        self._held_out = [i % every == every - 1 for i in range(len(lengths))]
        kept = sum(length for length, held in zip(lengths, self._held_out, strict=True) if not held)
        self._stride = max(1, -(-kept // settings.sample_tokens))
        self._firsts = [0]
        for length, held in zip(lengths, self._held_out, strict=True):
            self._firsts.append(self._firsts[-1] + (0 if held else length))
        self._counts: dict[int, Tensor] = {}
        self._sample: dict[int, Tensor] = {}
        self._layer = -1

    def router(self, layer: int, sequence: int, expert_index: Tensor) -> None:
        """Tokens of this sequence for each expert: an expert's inputs come sequence by sequence."""
        self._enter(layer)
        self._counts[sequence] = torch.bincount(expert_index.flatten(), minlength=self._num_experts).cpu()

    def moe_input(self, layer: int, sequence: int, x: Tensor) -> None:
        self._enter(layer)
        if not self._held_out[sequence]:
            own = x[-self._firsts[sequence] % self._stride :: self._stride]
            self._sample[sequence] = own.float()

    def expert(
        self, layer: int, expert: int, hidden: Tensor, gate_up: Tensor, down: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        if layer not in self._chosen:
            return None
        stored = self._store.get(layer, expert)
        if stored is None:
            stored = self._rounded(layer, expert, hidden, gate_up.float(), down.float())
            self._store.put(layer, expert, stored)
        return _decoded(stored.gate_up, gate_up), _decoded(stored.down, down)

    def _rounded(self, layer: int, expert: int, hidden: Tensor, gate_up: Tensor, down: Tensor) -> StoredExpert:
        sequences = sorted(self._counts)
        counts = torch.stack([self._counts[i][expert] for i in sequences])
        mask = torch.tensor([self._held_out[i] for i in sequences]).repeat_interleave(counts).to(hidden.device)
        x, unseen = hidden[~mask], hidden[mask]
        sample = torch.cat([self._sample[i] for i in sorted(self._sample)]) if self._sample else hidden[:0].float()
        name = f"layer {layer}, expert {expert}"
        result = rounded_expert(gate_up, down, x, sample, self._act, self._settings, name)
        errors = output_errors(gate_up, down, result, unseen, self._act)
        record = {
            "tokens": len(x),
            "held_out_tokens": len(unseen),
            "output_error_max": errors and errors[0],
            "output_error": errors and errors[1],
            "damping": list(result.dampings),
        }
        return StoredExpert(_encoded(result.gate_up), _encoded(result.down), record)

    def _enter(self, layer: int) -> None:
        if layer != self._layer:
            self._layer, self._counts, self._sample = layer, {}, {}


def _encoded(matrix: Rounded) -> Encoded:
    return Encoded(packed(matrix.codes).cpu().numpy(), matrix.scales.cpu().numpy(), np.float32(matrix.scale_2))


def _decoded(matrix: Encoded, like: Tensor) -> Tensor:
    """The stored matrix as every loader decodes it, on the device and in the dtype of `like`."""
    codes, scales = (torch.from_numpy(part.copy()).to(like.device) for part in (matrix.codes, matrix.scales))
    scale_2 = torch.tensor(float(matrix.scale_2), device=like.device).expand(len(codes))
    return dequantized(codes, scales.view(torch.float8_e4m3fn), scale_2).to(like.dtype)
