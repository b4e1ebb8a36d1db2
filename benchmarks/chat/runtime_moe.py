"""One MoE layer of GLM-5.2, NVFP4 weights, BF16 activations: ours against humming's GEMMs and bf16 `torch._grouped_mm`.

    PYTHONPATH=src python -m benchmarks.chat.runtime_moe             # on an H100, with humming-kernels installed
    PYTHONPATH=src python -m benchmarks.chat.runtime_moe --smoke     # tiny sizes, any machine: the logic of this script

Times in ms: median of replays of a CUDA graph over several routings, everything from hidden states to weighted sum.
"ours" is `HummingBackend.experts`; "humming + torch glue" the same GEMMs with torch in between, the faster of indexed
and grouped; "GEMMs" both indexed GEMMs alone, sorted beforehand; "bf16" sorting, `torch._grouped_mm` twice and torch
glue. Floor: the larger of bytes of the hit experts at 3110 GB/s and arithmetic at 785 TFLOP/s (H100).
Correctness comes first: every variant against the reference back end, relative error below 1 %.
"""

import argparse
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.table import ROOT, record, show

# The layer needs no transformers: this stands in for the package's __init__, which registers the loader there.
package = types.ModuleType("halfbyte.runtime")
package.__path__ = [str(ROOT / "src/halfbyte/runtime")]
sys.modules["halfbyte.runtime"] = package

from halfbyte.formats.nvfp4 import torch as values  # noqa: E402
from halfbyte.runtime.backends.dequant import DequantBackend  # noqa: E402
from halfbyte.runtime.backends.reference import ReferenceBackend, per_row  # noqa: E402
from halfbyte.runtime.backends.routing import sort_by_expert  # noqa: E402
from halfbyte.runtime.options import Options  # noqa: E402
from halfbyte.runtime.packed import Backend, PackedExperts  # noqa: E402
from halfbyte.runtime.runtime import Runtime  # noqa: E402

SHAPES = {"TP8": (256, 6144, 256, 8), "EP8": (32, 6144, 2048, 8)}
"""experts, hidden size, intermediate size, top-k of one rank's share of a GLM-5.2 layer."""
SIZES = (1, 2, 4, 8, 16, 64, 256, 1024, 4096, 16384)
GIGABYTES, TERAFLOPS = 3110e9, 785e12
ROUTINGS = 8
Call = Callable[[Tensor, Tensor, Tensor], Tensor]


def random_layer(shape: tuple[int, int, int, int], device: str) -> PackedExperts:
    experts, hidden, intermediate, _ = shape
    runtime: Runtime[Backend] = Runtime("W4A16_NVFP4", Options())
    layer = PackedExperts(experts, hidden, intermediate, torch.nn.SiLU(), runtime, "layer").to(device)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in layer.named_parameters():
        data = parameter.data.view(torch.uint8) if parameter.dtype != torch.float32 else parameter.data
        if name.endswith("_scale_2"):
            data.uniform_(0.5e-3, 1e-3, generator=generator)
            if data.ndim == 2:
                data[:, 1] = data[:, 0]  # gate and up share it in every checkpoint that engines load
        elif name.endswith("_scale"):
            data.random_(0x20, 0x48, generator=generator)
        else:
            data.random_(0, 256, generator=generator)
    return layer


def inputs(shape: tuple[int, int, int, int], tokens: int, device: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    experts, hidden, _, top_k = shape
    generator = torch.Generator(device).manual_seed(tokens)
    made = []
    for _ in range(ROUTINGS if tokens <= 256 else 2):
        x = torch.randn(tokens, hidden, device=device, generator=generator).bfloat16()
        index = torch.rand(tokens, experts, device=device, generator=generator).topk(top_k).indices
        made.append((x, index, torch.rand(tokens, top_k, device=device, generator=generator) / top_k))
    return made


def bf16_layer(layer: PackedExperts) -> Call:
    """The same numbers in BF16 through `torch._grouped_mm`."""

    def weights(matrices: Any) -> Tensor:
        decoded = [  # expert by expert: the float32 product of a whole stack would take 12 GB
            (values.decode(one.codes, one.scales, torch.float32) * per_row(one)[:, None]).bfloat16()
            for one in map(matrices.expert, range(layer.num_experts))
        ]
        return torch.stack(decoded).transpose(1, 2)

    gate_up, down = weights(layer.gate_up), weights(layer.down)

    def call(x: Tensor, index: Tensor, top_k_weights: Tensor) -> Tensor:
        flat = index.reshape(-1)
        ordered, order = flat.sort()
        experts = torch.arange(layer.num_experts, device=x.device)
        ends = torch.searchsorted(ordered, experts, right=True).to(torch.int32)
        gate, up = torch._grouped_mm(x[order // index.shape[1]], gate_up, offs=ends).chunk(2, -1)
        rows = torch._grouped_mm(torch.nn.functional.silu(gate) * up, down, offs=ends)
        back = torch.empty_like(rows)
        back[order] = rows
        return (back.view(*index.shape, -1) * top_k_weights[..., None]).sum(1).to(x.dtype)

    return call


def humming_variants(layer: PackedExperts) -> dict[str, Call]:
    """ours, the plain sequences, and the GEMMs alone. Rearranges the layer's weights."""
    from humming.config import GemmType

    from halfbyte.runtime.backends import glue
    from halfbyte.runtime.backends.humming import HummingBackend

    backend = HummingBackend()
    backend.prepare({"layer": layer})
    gemms = backend._layers[id(layer)]

    def join(gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        return torch.nn.functional.silu(gate) * up

    def indexed(x: Tensor, index: Tensor, top_k_weights: Tensor) -> Tensor:
        routing = []
        for gemm in gemms:
            ids, experts, padded = glue.align(index, layer.num_experts, gemm.block_rows(index.numel(), x.device))
            routing.append({"sorted_ids": ids, "expert_ids": experts, "num_tokens_padded": padded})
        joined = join(gemms.gate_up(x, GemmType.INDEXED, top_k=index.shape[1], **routing[0]))
        rows = gemms.down(joined, GemmType.INDEXED, top_k=1, **routing[1])
        return (rows.view(*index.shape, -1) * top_k_weights[..., None]).sum(1).to(x.dtype)

    def grouped(x: Tensor, index: Tensor, top_k_weights: Tensor) -> Tensor:
        flat = index.reshape(-1)
        ordered, order = flat.sort()
        ends = torch.searchsorted(ordered, torch.arange(layer.num_experts, device=x.device), right=True)
        layout = torch.nn.functional.pad(ends, (1, 0))
        kind = GemmType.GROUPED_CONTIGUOUS
        joined = join(gemms.gate_up(x[order // index.shape[1]], kind, expert_layout=layout))
        back = torch.empty(len(order), x.shape[1], dtype=x.dtype, device=x.device)
        back[order] = gemms.down(joined, kind, expert_layout=layout)
        return (back.view(*index.shape, -1) * top_k_weights[..., None]).sum(1).to(x.dtype)

    prepared: dict[int, Any] = {}

    def gemms_only(x: Tensor, index: Tensor, _: Tensor) -> Tensor:
        key = index.data_ptr()
        if key not in prepared:
            prepared[key] = [
                backend._align(index, layer.num_experts, g.block_rows(index.numel(), x.device)) for g in gemms
            ]
        first, second = prepared[key]
        gate_up = gemms.gate_up(x, GemmType.INDEXED, top_k=index.shape[1], **first)
        return gemms.down(gate_up[:, : layer.intermediate_size].contiguous(), GemmType.INDEXED, top_k=1, **second)

    def ours(x: Tensor, index: Tensor, top_k_weights: Tensor) -> Tensor:
        return backend.experts(layer, x, index, top_k_weights, None, None)

    return {"ours": ours, "indexed": indexed, "grouped": grouped, "GEMMs": gemms_only}


def milliseconds(call: Call, made: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Median over replays, per call."""
    for arguments in made:  # compile, and fill what is cached per shape
        call(*arguments)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for arguments in made:
            call(*arguments)
    times: list[float] = []
    for _ in range(20):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / len(made))
    return sorted(times[2:])[len(times[2:]) // 2]


def floor(shape: tuple[int, int, int, int], made: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    _, hidden, intermediate, top_k = shape
    hit = sum(len(index.unique()) for _, index, _ in made) / len(made)
    parameters = 3 * hidden * intermediate
    read = hit * parameters * 0.5625 / GIGABYTES
    return 1e3 * max(read, 2 * len(made[0][0]) * top_k * parameters / TERAFLOPS)


def check(name: str, result: Tensor, wanted: Tensor) -> None:
    error = float((result.float() - wanted.float()).norm() / wanted.float().norm())
    print(f"  {name}: relative error {error:.1e}", file=sys.stderr)
    if not error < 1e-2:
        raise SystemExit(f"{name} is wrong: relative error {error}")


def on_gpu(sizes: list[int]) -> None:
    columns = [
        "shape",
        "M",
        "floor",
        "ours",
        "humming + torch glue",
        "GEMMs",
        "bf16",
        "ours / best humming",
        "floor / ours",
    ]
    rows, data = [], []
    for shape_name, shape in SHAPES.items():
        layer = random_layer(shape, "cuda")
        reference, bf16 = ReferenceBackend(), bf16_layer(layer)
        probes = {tokens: inputs(shape, tokens, "cuda")[0] for tokens in (1, 4, 37, 1024)}
        wanted = {m: reference.experts(layer, *probe, None, None) for m, probe in probes.items()}
        for m, probe in probes.items():
            check(f"{shape_name} M={m} bf16", bf16(*probe), wanted[m])
            check(f"{shape_name} M={m} dequant", DequantBackend().experts(layer, *probe, None, None), wanted[m])
        variants = humming_variants(layer)
        for m, probe in probes.items():
            for name in ("ours", "indexed", "grouped"):
                check(f"{shape_name} M={m} {name}", variants[name](*probe), wanted[m])
        for tokens in sizes:
            made = inputs(shape, tokens, "cuda")
            times: dict[str, float | None] = {}
            for name, call in {**variants, "bf16": bf16}.items():
                try:
                    times[name] = milliseconds(call, made)
                except (RuntimeError, AssertionError) as error:
                    print(f"  {shape_name} M={tokens} {name}: {error}", file=sys.stderr)
                    times[name] = None
            plain = min((t for t in (times["indexed"], times["grouped"]) if t), default=None)
            least = floor(shape, made)
            ours = times["ours"]
            ratio = f"{ours / plain:.2f}" if ours and plain else "-"
            shown = [least, ours, plain, times["GEMMs"], times["bf16"]]
            cells = [f"{t:.4f}" if t else "-" for t in shown]
            rows.append([shape_name, str(tokens), *cells, ratio, f"{least / ours:.0%}" if ours else "-"])
            data.append({"shape": shape_name, "tokens": tokens, "floor": least} | times)
            print(rows[-1], file=sys.stderr)
        del layer, bf16, variants
        torch.cuda.empty_cache()
    title = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, ms"
    show(title, columns, rows)
    record("runtime_moe", {"device": title, "rows": data})


def smoke() -> None:
    """The parts of this script that need no GPU, at a tiny size."""
    shape = (8, 64, 32, 2)
    layer = random_layer(shape, "cpu")
    for tokens in (1, 5, 40):
        for probe in inputs(shape, tokens, "cpu")[:2]:
            wanted = ReferenceBackend().experts(layer, *probe, None, None)
            check(f"M={tokens} dequant", DequantBackend().experts(layer, *probe, None, None), wanted)
            check(f"M={tokens} bf16", bf16_layer(layer)(*probe), wanted)
            assert int(sort_by_expert(probe[1], shape[0]).counts.sum()) == tokens * shape[3]
        assert floor(shape, inputs(shape, tokens, "cpu")) > 0
    show("smoke", ["shape", "result"], [["tiny", "ok"]])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU, nothing is timed")
    options.add_argument("--tokens", default=",".join(map(str, SIZES)), help="batch sizes M")
    chosen = options.parse_args()
    with torch.no_grad():
        if chosen.smoke:
            smoke()
        else:
            on_gpu([int(size) for size in chosen.tokens.split(",")])


if __name__ == "__main__":
    main()
