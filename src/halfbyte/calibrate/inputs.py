"""What one linear's input looked like: largest magnitude, a histogram of magnitudes, a sample of rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from halfbyte.calibrate.rule import MSE_STEPS, Rule
from halfbyte.errors import NonFiniteError
from halfbyte.formats.nvfp4.format import AMAX_TO_SCALE_2
from halfbyte.formats.nvfp4.torch import fake_quantized

SHIFT = 16
"""Bits of a float32 magnitude that its bin ignores: 128 bins an octave, so that a percentile errs by at most 0.8 %."""
BINS = 0x7F80 + 1
SAMPLED_ROWS = 16
LARGEST_ROWS = 4


@dataclass(frozen=True)
class Seen:
    """tokens: rows. largest: of |x|. value: what the rule makes of them; `headroom`, which looks at blocks, nothing."""

    tokens: int
    largest: float
    value: float

    def __add__(self, other: "Seen") -> "Seen":
        """Of rules whose value is the largest's."""
        return Seen(self.tokens + other.tokens, max(self.largest, other.largest), max(self.value, other.value))


class Inputs:
    """Gathers parts of one linear's input. Stays on their device and never waits for it until `seen`."""

    def __init__(self, name: str, rule: Rule, device: torch.device, seed: int = 0) -> None:
        """name: for errors. seed: of the sampled rows."""
        self._name, self._rule = name, rule
        self._tokens = 0
        self._largest = torch.zeros((), device=device)
        self._bins = torch.zeros(BINS, dtype=torch.int64, device=device) if rule.kind == "percentile" else None
        self._random = torch.Generator().manual_seed(seed)
        self._sample: tuple[Tensor, Tensor] | None = None
        self._outliers: Tensor | None = None

    def see(self, x: Tensor) -> None:
        """One part, [..., K]."""
        x = x.detach().flatten(0, -2)
        if not x.numel():
            return
        self._tokens += len(x)
        magnitude = x.abs().float()
        self._largest = torch.maximum(self._largest, magnitude.max())
        if self._bins is not None:
            bins = (magnitude.view(torch.int32) >> SHIFT).clamp_(max=BINS - 1)
            self._bins += torch.bincount(bins.flatten(), minlength=BINS)
        if self._rule.kind == "mse":
            self._keep_rows(x, magnitude.amax(-1))

    def seen(self) -> Seen:
        """Raises NonFiniteError if a NaN or an Inf was among them."""
        largest = float(self._largest)
        if not torch.isfinite(self._largest):
            raise NonFiniteError(
                f"{self._name}: its input reached {largest} on the calibration data",
                hint="the model overflows on this text; check the weights, or compute in another dtype",
            )
        if self._rule.kind in ("max", "headroom") or not largest:
            return Seen(self._tokens, largest, largest)
        value = self._percentile() if self._rule.kind == "percentile" else self._least_error(largest)
        return Seen(self._tokens, largest, min(value, largest))

    def _percentile(self) -> float:
        """Upper end of the bin that holds the percentile."""
        assert self._bins is not None
        counts = self._bins.cpu().cumsum(0)
        rank = self._rule.percentile / 100 * int(counts[-1])
        position = int(torch.searchsorted(counts, torch.tensor(rank, dtype=torch.float64).ceil().long()))
        upper = torch.tensor(((position + 1) << SHIFT) - 1, dtype=torch.int32).view(torch.float32)
        return float(upper)

    def _keep_rows(self, x: Tensor, largest: Tensor) -> None:
        """A uniform sample (the rows with the smallest random keys), and the rows with the largest magnitudes."""
        keys = torch.rand(len(x), generator=self._random).to(x.device)
        rows = x
        if self._sample is not None:
            keys, rows = torch.cat((self._sample[0], keys)), torch.cat((self._sample[1], x))
        keys, best = keys.topk(min(SAMPLED_ROWS, len(keys)), largest=False)
        self._sample = keys, rows[best]
        candidates = x[largest.topk(min(LARGEST_ROWS, len(x))).indices]
        if self._outliers is not None:
            candidates = torch.cat((self._outliers, candidates))
        self._outliers = candidates[candidates.abs().amax(-1).topk(min(LARGEST_ROWS, len(candidates))).indices]

    def _least_error(self, largest: float) -> float:
        """amax with the least squared error over the sample, which stands for all rows, and the outliers."""
        assert self._sample is not None
        assert self._outliers is not None
        sample, outliers = self._sample[1].float(), self._outliers.float()
        weight = self._tokens / len(sample)
        best, least = largest, float("inf")
        for step in MSE_STEPS:
            scale = torch.tensor(largest * step / float(AMAX_TO_SCALE_2), device=sample.device)
            error = weight * _squared_error(sample, scale) + _squared_error(outliers, scale)
            if error < least:
                best, least = largest * step, error
        return best


def _squared_error(x: Tensor, scale: Tensor) -> float:
    return float((fake_quantized(x, scale) - x).square().sum())
