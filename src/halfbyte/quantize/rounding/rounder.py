"""The observer that rounds: expert by expert, each on activations of the layers already rounded."""

import threading
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from halfbyte.calibrate.held_out import held_out
from halfbyte.calibrate.rule import Rule
from halfbyte.calibrate.watch import Watch
from halfbyte.formats.nvfp4.reference import Encoded
from halfbyte.formats.nvfp4.torch import dequantized, packed
from halfbyte.quantize.rounding.columns import Rounded
from halfbyte.quantize.rounding.expert import Activation, output_errors, rounded_expert
from halfbyte.quantize.rounding.hessian import Inputs
from halfbyte.quantize.rounding.settings import Settings
from halfbyte.quantize.rounding.store import RoundedExperts, StoredExpert
from halfbyte.quantize.rounding.tokens import Tokens
from halfbyte.stream.routing import ExpertRows


class Rounder(Watch):
    """Rounds routed experts of the chosen layers; also watches every linear's input, as calibration does.

    lengths: tokens of each sequence. Every `settings.held_out`-th sequence is kept out of all Hessians: on its tokens
    the error of an expert's output is measured. token_weights: float32 [all tokens], what each counts for.
    """

    def __init__(
        self,
        num_experts: int,
        layers: set[int],
        lengths: list[int],
        act: Activation,
        settings: Settings,
        store: RoundedExperts,
        token_weights: Tensor,
    ) -> None:
        self._unseen = held_out(len(lengths), settings.held_out)
        super().__init__(num_experts, Rule("max"), held_out=self._unseen)
        self._chosen, self._act, self._settings, self._store = layers, act, settings, store
        kept = sum(length for length, held in zip(lengths, self._unseen, strict=True) if not held)
        self._stride = max(1, -(-kept // settings.sample_tokens))
        self._firsts = [0]
        for length, held in zip(lengths, self._unseen, strict=True):
            self._firsts.append(self._firsts[-1] + (0 if held else length))
        self._offsets = [0, *accumulate(lengths)]
        self._token_weights = token_weights
        self._sample: dict[int, Inputs] = {}
        self._gathered: Inputs | None = None
        self._layer = -1
        self._sampling, self._storing = threading.Lock(), threading.Lock()

    def moe_input(self, layer: int, sequence: int, x: Tensor, energy: Tensor) -> None:
        self._enter(layer)
        if not self._unseen[sequence]:
            every = slice(-self._firsts[sequence] % self._stride, None, self._stride)
            weights = self._token_weights[self._offsets[sequence] : self._offsets[sequence + 1]][every].to(x.device)
            importance = torch.where(energy[every] > 0, weights / energy[every], 0.0)
            self._sample[sequence] = Inputs(x[every].float(), importance)

    def expert(
        self, layer: int, expert: int, hidden: Tensor, rows: ExpertRows, gate_up: Tensor, down: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        if layer not in self._chosen:
            return None
        with self._storing:
            stored = self._store.get(layer, expert)
        if stored is None:
            importance = rows.importance() * self._token_weights[rows.token.cpu()].to(hidden.device)
            stored = self._rounded(layer, expert, Inputs(hidden, importance), gate_up.float(), down.float())
            with self._storing:
                self._store.put(layer, expert, stored)
        return _decoded(stored.gate_up, gate_up), _decoded(stored.down, down)

    def _rounded(self, layer: int, expert: int, inputs: Inputs, gate_up: Tensor, down: Tensor) -> StoredExpert:
        mask = self._held_out_rows(expert).to(inputs.x.device)
        own, unseen = Inputs(inputs.x[~mask], inputs.importance[~mask]), inputs.x[mask]
        tokens = Tokens(own, self._layer_sample(own), self._settings.prior_tokens)
        name = f"layer {layer}, expert {expert}"
        result = rounded_expert(gate_up, down, tokens, self._act, self._settings, name)
        errors = output_errors(gate_up, down, result, unseen, self._act)
        record = {
            "tokens": len(own.x),
            "held_out_tokens": len(unseen),
            "output_error_max": errors and errors[0],
            "output_error": errors and errors[1],
            "damping": list(result.dampings),
        }
        return StoredExpert(_encoded(result.gate_up), _encoded(result.down), record)

    def _layer_sample(self, own: Inputs) -> Inputs:
        """The same for all experts of a layer, so that its second moment is computed once."""
        with self._sampling:
            return self._sampled(own)

    def _sampled(self, own: Inputs) -> Inputs:
        if self._gathered is None:
            parts = [self._sample[i] for i in sorted(self._sample)]
            if not parts:  # every document is held out
                return Inputs(own.x[:0].float(), own.importance[:0])
            gathered = (torch.cat([part.x for part in parts]), torch.cat([part.importance for part in parts]))
            self._gathered = Inputs(*gathered)
            self._sample = {}
        return self._gathered

    def _enter(self, layer: int) -> None:
        if layer != self._layer:
            self._layer, self._sample, self._gathered = layer, {}, None


def _encoded(matrix: Rounded) -> Encoded:
    return Encoded(packed(matrix.codes).cpu().numpy(), matrix.scales.cpu().numpy(), np.float32(matrix.scale_2))


def _decoded(matrix: Encoded, like: Tensor) -> Tensor:
    """The stored matrix as every loader decodes it, on the device and in the dtype of `like`."""
    codes, scales = (torch.from_numpy(part.copy()).to(like.device) for part in (matrix.codes, matrix.scales))
    scale_2 = torch.tensor(float(matrix.scale_2), device=like.device).expand(len(codes))
    return dequantized(codes, scales.view(torch.float8_e4m3fn), scale_2).to(like.dtype)
