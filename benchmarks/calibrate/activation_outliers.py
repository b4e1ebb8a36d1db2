"""Which activation scale survives what the calibration has not seen. tiny-glm, routed experts.

    python -m benchmarks.calibrate.activation_outliers [--windows 12] [--documents 24]

1. What blocks lose whose scale is subnormal: the table in calibrate/shares.py is checked against it.
2. Scales measured on one kind of text (prose, then chat) and used on both. No text calibrates and is measured on.
3. In each chat text, the token with the largest input of any down_proj gets inputs of all its down_proj that are 3,
   10 and 30 times as large as they were, in the BF16 model and in the rounded one. KL at this token.

Weights stay BF16, so that KL is of the activations alone. Rules: `max` (ModelOpt's), `headroom` (ours), ModelOpt's
newer headroom calibrator (the larger of 16,384 times the 1st percentile of block amax and the 99.99th percentile), the
99.99th percentile alone, and the constant 1.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from benchmarks.chat.runtime_accuracy import load
from benchmarks.compare.tiny_accuracy import TINY
from benchmarks.table import record, show
from halfbyte.api import calibrate
from halfbyte.calibrate.headroom import headroom_scale
from halfbyte.calibrate.histogram import EDGES, Histogram
from halfbyte.calibrate.shares import ADDED_ERROR, CEILING, FLOOR, ROUNDING_ERROR, shares
from halfbyte.data.documents import load as load_documents
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.formats.nvfp4.torch import fake_quantized

FACTORS = (3.0, 10.0, 30.0)
LENGTH = 512
Scales = dict[int, tuple[float, float]]
"""By layer: input_scale of gate/up and of down."""


def percentile(blocks: Histogram, percent: float) -> float:
    """Of block amax, to a sixteenth of an octave."""
    reached = blocks.counts.cumsum()
    return float(EDGES[np.searchsorted(reached, percent / 100 * reached[-1])])


RULES: dict[str, Callable[[Histogram], float]] = {
    "max": lambda blocks: blocks.largest / CEILING,
    "99.99th percentile": lambda blocks: percentile(blocks, 99.99) / CEILING,
    "ModelOpt headroom": lambda blocks: max(16384 * percentile(blocks, 1), percentile(blocks, 99.99)) / CEILING,
    "headroom": headroom_scale,
    "1": lambda _: 1.0,
}


def kinds_of_blocks() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    count = (40_000, 16)

    def normal() -> Tensor:
        return torch.randn(*count, generator=random)

    def spike(rest: float) -> Tensor:
        x = normal() * rest
        x[:, 0] = 1 + torch.rand(len(x), generator=random)
        return x

    return {
        "normal": normal(),
        "Laplace": torch.distributions.Laplace(0.0, 1.0).sample(count),
        "Student t, 3": torch.distributions.StudentT(3.0).sample(count),
        "gated normal": silu(normal()) * normal(),
        "uniform": torch.rand(*count, generator=random) - 0.5,
        "all equal": torch.ones(*count),
        "one large, rest 1/50": spike(0.02),
        "one large, rest 1/20": spike(0.05),
        "one large, rest 1/10": spike(0.1),
        "one large, rest 1/5": spike(0.2),
    }


def losses() -> list[dict[str, Any]]:
    """Relative squared error in the octave above the floor, what each octave below adds, and what clipping costs."""
    random, rows = torch.Generator().manual_seed(1), []
    for name, x in kinds_of_blocks().items():
        x = x / x.abs().amax(-1, keepdim=True)

        def error(size: Tensor | float, x: Tensor = x) -> float:
            y = x * size
            return float(((fake_quantized(y, torch.tensor(1.0)) - y).square().sum(-1) / y.square().sum(-1)).mean())

        octaves = [error(FLOOR * 2 ** (1 - octave - torch.rand(len(x), 1, generator=random))) for octave in range(6)]
        added = [value - octaves[0] for value in octaves[1:]]
        clipped = {factor: error(CEILING * factor) for factor in (1.0, 1.5, 2.0, 3.0, 10.0, 30.0)}
        rows.append({"blocks": name, "error": octaves[0], "added": added, "clipped": clipped})
        assert all(value <= bound for value, bound in zip(added, ADDED_ERROR, strict=True)), (name, added)
    return rows


@dataclass
class Experts:
    """Routed experts that round their inputs and enlarge those of down for one token.

    scales: by layer; None computes in float32. token: which, and by which factor. largest: [T], of down's inputs.
    """

    scales: Scales | None = None
    token: tuple[int, float] = (0, 1.0)
    largest: Tensor = field(default_factory=lambda: torch.zeros(0))

    def take_over(self, model: Any) -> None:
        for number, layer in enumerate(model.model.layers):
            if hasattr(layer.mlp, "experts"):
                layer.mlp.experts.forward = self._forward(number, layer.mlp.experts)

    def _forward(self, number: int, experts: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def rounded(x: Tensor, group: int) -> Tensor:
            return x if self.scales is None else fake_quantized(x, torch.tensor(self.scales[number][group]))

        def forward(hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
            result = torch.zeros_like(hidden)
            outlier, factor = self.token
            for expert in index.unique().tolist():
                token, choice = torch.where(index == expert)
                gate, up = linear(rounded(hidden[token], 0), experts.gate_up_proj[expert]).chunk(2, -1)
                inner = silu(gate) * up
                self.largest[token] = torch.maximum(self.largest[token], inner.abs().amax(-1))
                inner = torch.where((token == outlier)[:, None], inner * factor, inner)
                out = linear(rounded(inner, 1), experts.down_proj[expert])
                result.index_add_(0, token, out * weights[token, choice, None])
            return result

        return forward


@torch.no_grad()
def log_probabilities(model: Any, experts: Experts, ids: Tensor) -> Tensor:
    experts.largest = torch.zeros(len(ids))
    result: Tensor = model(ids[None], use_cache=False).logits[0].log_softmax(-1)
    return result


def divergence(base: Tensor, other: Tensor) -> Tensor:
    """KL in nats at each position."""
    return (base.exp() * (base - other)).sum(-1)


def texts(windows: int, documents: int, folder: Path) -> tuple[dict[str, str], dict[str, list[Tensor]]]:
    """Files to calibrate on, and texts to measure on, of each kind."""
    tokenizer = open_tokenizer(TINY)
    ids = tokenizer.encode((TINY / "heldout.txt").read_text("utf-8"))
    pieces = [ids[start : start + LENGTH] for start in range(0, len(ids) - LENGTH, LENGTH)]
    chat = load_documents([str(TINY / "calibration.jsonl")], tokenizer, max_length=LENGTH).documents
    rows = {"prose": pieces, "chat": [document.ids.tolist() for document in chat]}
    wanted = {"prose": windows, "chat": documents}
    files, measured = {}, {}
    for kind, every in rows.items():
        step = len(every) // wanted[kind]
        held = set(range(0, step * wanted[kind], step))
        measured[kind] = [torch.tensor(every[i]) for i in sorted(held)]
        files[kind] = str(folder / f"{kind}.jsonl")
        kept = [json.dumps({"input_ids": row}) for i, row in enumerate(every) if i not in held]
        Path(files[kind]).write_text("\n".join(kept))
    return files, measured


def blocks_of(data: str, out: Path) -> dict[int, tuple[Histogram, Histogram]]:
    """By layer, of gate/up and of down: all documents of `data`."""
    calibrate(TINY, [data], out)
    inputs = json.loads(out.read_text())["halfbyte"]["inputs"]

    def both(name: str) -> Histogram:
        parts = [Histogram.from_json(part) for part in inputs[name]["blocks"].values()]
        return parts[0] + parts[1]

    layers = [int(name.split(".")[2]) for name in inputs if name.endswith(".experts.down_proj")]
    modules = {layer: f"model.layers.{layer}.mlp.experts" for layer in layers}
    return {n: (both(f"{module}.gate_up_proj"), both(f"{module}.down_proj")) for n, module in modules.items()}


def worst(scales: Scales, blocks: dict[int, tuple[Histogram, Histogram]]) -> dict[str, float]:
    """The largest of each share over layers and groups, and the least headroom."""
    pairs = [(scales[n][group], blocks[n][group]) for n in blocks for group in (0, 1)]
    found = [found for scale, histogram in pairs if (found := shares(histogram, scale)) is not None]
    names = ("clipped", "subnormal", "vanished", "subnormal_energy", "added_error")
    room = {"headroom": min(CEILING * scale / histogram.largest for scale, histogram in pairs)}
    return {name: max(getattr(one, name) for one in found) for name in names} | room


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--windows", type=int, default=12, help="of prose")
    options.add_argument("--documents", type=int, default=24, help="of chat")
    chosen = options.parse_args()
    lost = losses()
    columns = ["blocks", "error", *(f"-{i}" for i in range(1, 6)), *(f"clipped x{f:g}" for f in lost[0]["clipped"])]
    cells = [
        [row["blocks"], *(f"{v:.4f}" for v in (row["error"], *row["added"], *row["clipped"].values()))] for row in lost
    ]
    show("relative squared error, what each octave below the floor adds, and of clipped blocks", columns, cells)
    with tempfile.TemporaryDirectory() as name:
        files, measured = texts(chosen.windows, chosen.documents, Path(name))
        blocks = {kind: blocks_of(file, Path(name) / f"{kind}.json") for kind, file in files.items()}
    scales = {
        (kind, rule): {n: (make(pair[0]), make(pair[1])) for n, pair in blocks[kind].items()}
        for kind in blocks
        for rule, make in RULES.items()
    }
    model = load(TINY)
    experts = Experts()
    experts.take_over(model)
    rows: list[dict[str, Any]] = [
        {"calibrated on": kind, "rule": rule, "kl": {}, "outlier_kl": {}, "shares": {}} for kind, rule in scales
    ]
    for kind, own in measured.items():
        parts: list[list[Tensor]] = [[] for _ in rows]
        at_outlier: dict[float, list[list[Tensor]]] = {factor: [[] for _ in rows] for factor in FACTORS}
        for ids in own:
            experts.scales, experts.token = None, (0, 1.0)
            base = log_probabilities(model, experts, ids)
            outlier = int(experts.largest.argmax())
            for i, row in enumerate(rows):
                experts.scales = scales[row["calibrated on"], row["rule"]]
                parts[i].append(divergence(base, log_probabilities(model, experts, ids)))
            for factor in FACTORS if kind == "chat" else ():
                experts.scales, experts.token = None, (outlier, factor)
                base = log_probabilities(model, experts, ids)
                for i, row in enumerate(rows):
                    experts.scales = scales[row["calibrated on"], row["rule"]]
                    at_outlier[factor][i].append(divergence(base, log_probabilities(model, experts, ids))[outlier])
        for i, row in enumerate(rows):
            row["kl"][kind] = float(torch.cat(parts[i]).mean())
            row["shares"][kind] = worst(scales[row["calibrated on"], row["rule"]], blocks[kind])
            for factor in FACTORS if kind == "chat" else ():
                row["outlier_kl"][factor] = float(torch.stack(at_outlier[factor][i]).mean())
    columns = ["calibrated on", "rule", "KL prose", "KL chat", *(f"at outlier x{f:g}" for f in FACTORS)]
    columns += ["headroom", "clipped prose", "clipped chat", "added error prose", "added error chat", "vanished"]
    cells = []
    for row in rows:
        prose, chat = (row["shares"][kind] for kind in ("prose", "chat"))
        cells.append(
            [
                row["calibrated on"],
                row["rule"],
                *(f"{v:.4f}" for v in (*row["kl"].values(), *row["outlier_kl"].values())),
            ]
            + [f"{min(prose['headroom'], chat['headroom']):.3g}", f"{prose['clipped']:.2g}", f"{chat['clipped']:.2g}"]
            + [f"{one['added_error']:.2%}" for one in (prose, chat)]
            + [f"{max(prose['vanished'], chat['vanished']):.2g}"]
        )
    title = f"activations alone in NVFP4 (error of four bits: {ROUNDING_ERROR} of the squares); shares: worst input"
    show(title, columns, cells)
    tokens = {kind: sum(map(len, own)) for kind, own in measured.items()}
    record("activation_outliers", {"measured_tokens": tokens, "losses": lost, "rows": rows})


if __name__ == "__main__":
    main()
