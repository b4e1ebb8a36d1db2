"""Gathers the histograms of block amax of one input, of calibration documents and of those held out."""

from typing import NamedTuple

import torch
from torch import Tensor

from halfbyte.calibrate.histogram import BINS, SHIFT, TOKEN, Histogram
from halfbyte.formats.nvfp4.format import BLOCK_SIZE

CPU_ELEMENTS, GPU_ELEMENTS = 1 << 20, 1 << 26
"""Counted at a time: an expert's rows come in parts of few rows, each of which would cost as many small kernels."""


class Split(NamedTuple):
    """The same input on the documents that calibrate and on those held out."""

    calibration: Histogram
    held_out: Histogram


class Blocks:
    """Stays on the device of its parts and never waits for it until `split`."""

    def __init__(self, device: torch.device) -> None:
        self._counts = torch.zeros(2 * BINS, dtype=torch.int64, device=device)
        self._weight = torch.zeros(2 * BINS, dtype=torch.int64, device=device)
        self._largest = torch.zeros(2, device=device)
        self._together = CPU_ELEMENTS if device.type == "cpu" else GPU_ELEMENTS
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._waiting_elements = 0

    def see(self, x: Tensor, held_out: Tensor) -> None:
        """One part. x: [n, K], K a multiple of 16. held_out: bool [n], on the same device."""
        rows = max(1, self._together // x.shape[-1])
        if len(x) >= rows:
            for part, mask in zip(x.split(rows), held_out.split(rows), strict=True):
                self._count(part, mask)
            return
        self._waiting.append((x.clone(), held_out))
        self._waiting_elements += x.numel()
        if self._waiting_elements >= self._together:
            self._count_waiting()

    def _count_waiting(self) -> None:
        if self._waiting:
            self._count(*(torch.cat(parts) for parts in zip(*self._waiting, strict=True)))
        self._waiting, self._waiting_elements = [], 0

    def _count(self, x: Tensor, held_out: Tensor) -> None:
        if not x.numel():
            return
        blocks = x.unflatten(-1, (-1, BLOCK_SIZE))
        amax = blocks.abs().amax(-1).float()
        bins = (((amax.view(torch.int32) - 1) >> SHIFT) + 1).clamp_(max=BINS - 1)  # a NaN is for Inputs to report
        bins += held_out[:, None] * BINS
        energy = torch.linalg.vector_norm(blocks, dim=-1, dtype=torch.float64).square_()  # squares overflow a float32
        energy /= energy.sum(-1, keepdim=True)
        weight = torch.where(amax > 0, energy * TOKEN, 0.0).round_()
        self._counts += torch.bincount(bins.flatten(), minlength=2 * BINS)
        sums = torch.bincount(bins.flatten(), weights=weight.flatten(), minlength=2 * BINS)
        self._weight += sums.long()  # whole numbers below 2**53: exact in any order
        rows = amax.amax(-1)
        now = [rows.where(mask, 0.0).amax() for mask in (~held_out, held_out)]
        self._largest = torch.maximum(self._largest, torch.stack(now))

    def split(self) -> Split:
        self._count_waiting()
        counts, weight = (sums.cpu().numpy().reshape(2, BINS) for sums in (self._counts, self._weight))
        largest = self._largest.tolist()
        return Split(*(Histogram(counts[i], weight[i], largest[i]) for i in range(2)))
