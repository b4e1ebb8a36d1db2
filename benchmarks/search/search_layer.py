"""`search` on one full-size MoE layer of GLM-5.2: what its branches cost beside reading the layer (CUDA).

    python -m benchmarks.search.search_layer FOLDER [--tokens 2048] [--branches 32]
    python -m benchmarks.search.search_layer FOLDER --smoke       small shapes on a CPU, to see that it runs

A checkpoint with GLM-5.2's widths, one dense and one MoE layer (256 experts, 19 GB) and random weights is written to
FOLDER and kept. Timed is the step through the MoE layer: the model alone; with the layer's two groups rounded (routed
experts, shared expert); with so many branches more that parted before and now run along. The whole model's cost pass is
the sum over its 78 layers, in each of which all groups of the layers before it run along.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.table import record, show

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import json

from families.configs import CONFIGS
from families.headers import Variant, headers_for

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.formats.nvfp4.stored import FORMAT as NVFP4
from halfbyte.models import roles_of
from halfbyte.search.damage import _modules, _Once, _Rounded
from halfbyte.search.groups import groups_of
from halfbyte.stream.branch import Branch
from halfbyte.stream.executor import Streamed

LAYERS, DENSE = 78, 3
SMALL = {"hidden_size": 256, "intermediate_size": 512, "moe_intermediate_size": 128, "n_routed_experts": 8}
SHARD_BYTES = 5_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--branches", type=int, default=32)
    parser.add_argument("--smoke", action="store_true")
    asked = parser.parse_args()
    device = "cpu" if asked.smoke else "cuda"
    if not (asked.folder / "config.json").exists():
        _write(asked.folder, SMALL if asked.smoke else {}, device)
    with Checkpoint.open(asked.folder) as source:
        groups = [group for group in groups_of(source, NVFP4) if group.layer == 1]
        modules, once, size = _modules(source, set(groups)), _Once(), source.bytes
        first = len(roles_of(source.config).expert_projections) - 1
    rounded = [_Rounded({group: NVFP4}, modules, once, first) for group in groups]
    along: list[Branch] = [Branch(0) for _ in range(asked.branches)]
    runs: dict[str, Sequence[Branch]] = {
        "the model alone": [],
        "its groups rounded": rounded,
        f"and {asked.branches} along": [*along, *rounded],
    }
    seconds: dict[str, float] = {}
    for name, branches in runs.items():
        seconds[name] = _step_s(asked.folder, asked.tokens, branches, device)
        print(f"{name}: {seconds[name]:.2f} s", flush=True)
    alone, ours, with_more = seconds.values()
    each = (with_more - ours) / asked.branches
    total = sum(ours + each * (2 * layer - min(layer, DENSE)) for layer in range(LAYERS))
    rows = [[name, f"{value:.2f}"] for name, value in seconds.items()]
    rows += [["rounding both groups, over the model alone", f"{ours - alone:.2f}"], ["a branch along", f"{each:.3f}"]]
    rows += [[f"cost pass of {LAYERS} layers, extrapolated", f"{total:,.0f}"], ["limit", "3,600"]]
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    show(
        f"one MoE layer ({size / 1e9:.1f} GB with the dense one), {asked.tokens} tokens, {card}", ["", "seconds"], rows
    )
    figures = {"alone_s": alone, "rounded_s": ours, "branch_s": each, "extrapolated_s": total}
    record("search_layer", {"card": card, "tokens": asked.tokens, "branches": asked.branches} | figures)


def _step_s(folder: Path, tokens: int, branches: Sequence[Branch], device: str) -> float:
    """Seconds of the step through layer 1, its reading included."""
    drop = Path("/proc/sys/vm/drop_caches")
    try:
        drop.write_text("3")  # or the layer would come from memory
    except OSError:
        print("the page cache stays: reading is faster than from the disk")
    ids = torch.randint(0, 1024, (tokens,), generator=torch.Generator().manual_seed(0))
    with Streamed.open(folder, device=device) as model:
        model.start([ids], branches=branches)
        model.step()
        began = time.perf_counter()
        model.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def _write(folder: Path, changes: dict[str, Any], device: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIGS["GLM-5.2"] | {"num_hidden_layers": 2, "first_k_dense_replace": 1, "num_nextn_predict_layers": 0}
    config |= {"vocab_size": 1024} | changes
    config |= {key: value[:2] for key, value in config.items() if isinstance(value, list) and len(value) == LAYERS}
    if "mlp_layer_types" in config:
        config["mlp_layer_types"] = ["dense", "sparse"]
    generator = torch.Generator(device).manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    index: dict[str, str] = {}
    size = number = 0

    def flush() -> None:
        nonlocal shard, size, number
        name = f"model-{number:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, name))
        shard, size, number = {}, 0, number + 1

    for name, (dtype, shape) in headers_for(config, Variant()).items():
        wanted = torch.float32 if dtype == "F32" else torch.bfloat16
        values = torch.randn(shape, generator=generator, device=device) * (0.02 if len(shape) > 1 else 1)
        shard[name] = values.to(wanted).cpu()
        size += shard[name].numel() * shard[name].element_size()
        if size > SHARD_BYTES:
            flush()
    flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main()
