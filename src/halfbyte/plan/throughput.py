"""Speed, as an estimate: a roofline per step plus a fixed time per layer, scaled by factors fitted on posted runs.

decode step  = max(bytes / (bandwidth * b), flops / peak) + all-reduce bytes / link + layers * layer_ms
prefill      = max(flops / (peak * c), bytes / (bandwidth * b)) + all-reduce bytes / link, chunk by chunk
b, c and layer_ms come from `data/efficiency.yaml`, with the spread of observed over predicted beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from halfbyte.plan.hardware import LOADER, Gpu, Operand
from halfbyte.plan.work import StepWork

MTP_ACCEPTANCE = 0.905
"""Chance that a draft token is accepted. Posted: 3.48 and 3.52 tokens a step with 3 drafts of GLM-5 (1+p+p^2+p^3)."""
ESTIMATE = "roofline with fitted factors, not a measurement"


@dataclass(frozen=True)
class Efficiency:
    """See `data/efficiency.yaml`. fitted: whether any posted run of this engine on this GPU family was used."""

    layer_ms: float
    request_ms: float
    bandwidth: float
    compute: float
    decode_spread: tuple[float, float]
    prefill_spread: tuple[float, float]
    rows: tuple[str, ...]

    @property
    def fitted(self) -> bool:
        return bool(self.rows)


@cache
def efficiency(engine: str, family: str) -> Efficiency:
    """The entry of an engine and GPU family, or the unfitted default."""
    text = (resources.files("halfbyte.plan") / "data" / "efficiency.yaml").read_text("utf-8")
    table = yaml.load(text, Loader=LOADER)
    entry = {**table["default"], **table.get(f"{engine} {family}", {})}
    decode, prefill = entry["decode_spread"], entry["prefill_spread"]
    return Efficiency(
        layer_ms=entry["layer_ms"],
        request_ms=entry["request_ms"],
        bandwidth=entry["bandwidth"],
        compute=entry["compute"],
        decode_spread=(decode[0], decode[1]),
        prefill_spread=(prefill[0], prefill[1]),
        rows=tuple(entry["rows"]),
    )


@dataclass(frozen=True)
class Speed:
    """Latency and rate of one replica set at one load. Times in ms, rates per second over all GPUs."""

    concurrency: int
    ttft_ms: float
    tpot_ms: float
    output_tokens_per_s: float
    input_tokens_per_s: float
    requests_per_s: float


class SpeedModel:
    """Step times of one deployment. frequencies: measured expert popularity, uniform if None."""

    def __init__(self, work: StepWork, frequencies: Sequence[float] | None = None, factors: Efficiency | None = None):
        self.work, self.frequencies = work, frequencies
        self.d = work.plan.deployment
        self.gpu: Gpu = self.d.gpu
        self.factors = factors or efficiency(self.d.engine, self.gpu.family)

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a sequence gains per decode step: 1, or the expected accepted length with drafts."""
        drafts = self.d.mtp_tokens
        return (1 - MTP_ACCEPTANCE ** (drafts + 1)) / (1 - MTP_ACCEPTANCE) if drafts else 1.0

    def decode_step_ms(self, batch: float, context: float) -> float:
        """One step of `batch` sequences (over all ranks of a replica) at a mean context of `context` tokens."""
        own = batch / self.d.kv_ranks  # sequences whose cache this rank reads
        positions = batch * (self.d.mtp_tokens + 1)
        moved = self.work.weight_bytes(positions, self.frequencies) + own * self.work.kv_read_bytes(context)
        compute = self._gemm_seconds(positions / self.d.kv_ranks) + self._attention_seconds(
            own * self.work.attention_flops(self.d.mtp_tokens + 1, context)
        )
        memory = moved / (self.gpu.bandwidth_gb_s * 1e9 * self.factors.bandwidth)
        seconds = max(memory, compute) + self._exchange_seconds(positions / self.d.kv_ranks)
        layer_seconds = self.factors.layer_ms / 1e3
        seconds += self.work.arch.depth * layer_seconds
        if self.d.mtp_tokens:
            draft = self.work.draft_bytes / (self.gpu.bandwidth_gb_s * 1e9 * self.factors.bandwidth)
            seconds += self.d.mtp_tokens * (draft + layer_seconds)
        return seconds * 1e3

    def prefill_ms(self, tokens: int, cached: int = 0) -> float:
        """Prefill of one prompt of `tokens` tokens of which `cached` are in the prefix cache, alone on the server."""
        done, seconds = cached, 0.0
        chunk = max(self.work.plan.limits.chunk, 1)
        while done < tokens:
            new = min(chunk, tokens - done)
            done += new
            flops = self._gemm_seconds(new) + self._attention_seconds(self.work.attention_flops(new, done))
            memory = self.work.weight_bytes(new, self.frequencies) / (self.gpu.bandwidth_gb_s * 1e9)
            seconds += max(flops / self.factors.compute, memory / self.factors.bandwidth) + self._exchange_seconds(new)
            seconds += self.work.arch.depth * self.factors.layer_ms / 1e3
        return seconds * 1e3

    def at(self, concurrency: int, input_tokens: int, output_tokens: int) -> Speed:
        """Steady state with `concurrency` requests always in flight: prefills of others delay every decode."""
        replicas = self.d.replicas
        each = max(1.0, concurrency / replicas)
        context = input_tokens + output_tokens / 2
        step, prefill = self.decode_step_ms(each, context), self.prefill_ms(input_tokens) / self.d.kv_ranks
        decode_ms = output_tokens / self.tokens_per_step * step
        cycle_ms = decode_ms + each * prefill
        requests = replicas * each / cycle_ms * 1e3
        return Speed(
            concurrency=concurrency,
            ttft_ms=self.factors.request_ms
            + prefill * self.d.kv_ranks * (1 + min(each, self._prefill_load(requests, prefill)) / 2)
            + step,
            tpot_ms=(cycle_ms - prefill) / output_tokens,
            output_tokens_per_s=requests * output_tokens,
            input_tokens_per_s=requests * input_tokens,
            requests_per_s=requests,
        )

    def _prefill_load(self, requests_per_s: float, prefill_ms: float) -> float:
        """Mean number of prompts waiting before one's own, M/D/1: rho / (1 - rho)."""
        rho = min(0.95, requests_per_s / self.d.replicas * prefill_ms / 1e3)
        return rho / (1 - rho)

    def at_slo(self, most: int, input_tokens: int, output_tokens: int, ttft_ms: float, tpot_ms: float) -> Speed | None:
        """The highest load whose TTFT and TPOT stay within the SLO, at most `most` requests in flight."""
        best, low, high = None, 1, max(most, 0)
        while low <= high:
            middle = (low + high) // 2
            speed = self.at(middle, input_tokens, output_tokens)
            if speed.tpot_ms <= tpot_ms and speed.ttft_ms <= ttft_ms:
                best, low = speed, middle + 1
            else:
                high = middle - 1
        return best

    def _gemm_seconds(self, tokens: float) -> float:
        types: tuple[Operand, ...] = ("bf16", "fp8", "fp4")
        return sum(
            self.work.flops_per_token[t] * tokens / self.gpu.flops(t) for t in types if self.work.flops_per_token[t]
        )

    def _attention_seconds(self, flops: float) -> float:
        return flops / self.gpu.flops("bf16")

    def _exchange_seconds(self, tokens: float) -> float:
        """Two all-reduces per layer of BF16 hidden states, ring volume 2 (n - 1) / n, over the node's links."""
        ranks = self.d.tp
        if ranks == 1 and self.d.kv_ranks == 1:
            return 0.0
        ranks = max(ranks, self.d.kv_ranks)
        volume = 2 * self.work.arch.depth * 2 * (ranks - 1) / ranks * 2 * tokens * self.work.arch.hidden
        return volume / (self.gpu.link_gb_s * 1e9)


def speed_json(
    model: SpeedModel, speed: Speed, slo: Speed | None, input_tokens: int, output_tokens: int
) -> dict[str, Any]:
    """The `throughput` object of `plan --json`."""
    factors = model.factors
    found: dict[str, Any] = {
        "model": ESTIMATE,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "concurrency": speed.concurrency,
        "ttft_ms": round(speed.ttft_ms, 1),
        "tpot_ms": round(speed.tpot_ms, 2),
        "ttft_ms_range": [round(speed.ttft_ms * factor, 1) for factor in factors.prefill_spread],
        "tpot_ms_range": [round(speed.tpot_ms * factor, 2) for factor in factors.decode_spread],
        "output_tokens_per_s": round(speed.output_tokens_per_s, 1),
        "input_tokens_per_s": round(speed.input_tokens_per_s, 1),
        "requests_per_s": round(speed.requests_per_s, 4),
        "tokens_per_step": round(model.tokens_per_step, 3),
        "efficiency": {
            "layer_ms": factors.layer_ms,
            "request_ms": factors.request_ms,
            "bandwidth": factors.bandwidth,
            "compute": factors.compute,
            "fitted": factors.fitted,
            "decode_spread": list(factors.decode_spread),
            "prefill_spread": list(factors.prefill_spread),
            "rows": list(factors.rows),
        },
    }
    if slo is not None:
        found["at_slo"] = {
            "concurrency": slo.concurrency,
            "requests_per_s": round(slo.requests_per_s, 4),
            "output_tokens_per_s": round(slo.output_tokens_per_s, 1),
            "ttft_ms": round(slo.ttft_ms, 1),
            "tpot_ms": round(slo.tpot_ms, 2),
        }
    return found
