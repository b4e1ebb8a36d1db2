"""One full-size model layer after the other from disk: how fast, and what bounds it.

    python -m benchmarks.compare.stream --gigabytes 60 --device cuda [--folder DIR] [--tokens 262144] [--length 2048]

Writes a checkpoint of full-size GLM-5.2 MoE layers with random weights (256 experts, hidden 6144, width 2048; 19.8 GB a
layer), as many as `--gigabytes` allow, drops it from the page cache where the system lets us, runs random tokens
through it with `stream.executor`, calibrating, and prints each layer's time to read, copy and compute, how well reading
and computing overlap, and what 78 layers would take. The router is random too, so the experts are evenly loaded.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.table import record, show
from halfbyte.calibrate.rule import Rule
from halfbyte.calibrate.watch import Watch
from halfbyte.checkpoint.header import serialize_header
from halfbyte.stream.executor import Streamed

LAYERS = 78
H, EXPERTS, WIDTH, VOCABULARY = 6144, 256, 2048, 4096
CONFIG: dict[str, Any] = {
    "architectures": ["GlmMoeDsaForCausalLM"],
    "model_type": "glm_moe_dsa",
    "hidden_size": H,
    "intermediate_size": 12288,
    "moe_intermediate_size": WIDTH,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "q_lora_rank": 2048,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "qk_head_dim": 256,
    "v_head_dim": 256,
    "head_dim": 64,
    "index_n_heads": 32,
    "index_head_dim": 128,
    "index_topk": 2048,
    "first_k_dense_replace": 0,
    "num_nextn_predict_layers": 0,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "max_position_embeddings": 1048576,
    "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
    "tie_word_embeddings": False,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "dtype": "bfloat16",
}


def layer_shapes(layer: int, experts: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensors of one layer: those with an indexer in front of those that share its selection, as in GLM-5.2."""
    at = f"model.layers.{layer}."
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (H,),
        "post_attention_layernorm.weight": (H,),
        "self_attn.q_a_proj.weight": (2048, H),
        "self_attn.q_a_layernorm.weight": (2048,),
        "self_attn.q_b_proj.weight": (64 * 256, 2048),
        "self_attn.kv_a_proj_with_mqa.weight": (576, H),
        "self_attn.kv_a_layernorm.weight": (512,),
        "self_attn.kv_b_proj.weight": (64 * 448, 512),
        "self_attn.o_proj.weight": (H, 64 * 256),
        "mlp.gate.weight": (experts, H),
    }
    if layer == 0:
        shapes |= {
            "self_attn.indexer.wq_b.weight": (32 * 128, 2048),
            "self_attn.indexer.wk.weight": (128, H),
            "self_attn.indexer.k_norm.weight": (128,),
            "self_attn.indexer.k_norm.bias": (128,),
            "self_attn.indexer.weights_proj.weight": (32, H),
        }
    for module in ["shared_experts", *(f"experts.{e}" for e in range(experts))]:
        shapes |= {f"mlp.{module}.{name}.weight": (WIDTH, H) for name in ("gate_proj", "up_proj")}
        shapes[f"mlp.{module}.down_proj.weight"] = (H, WIDTH)
    result = {at + name: ("BF16", shape) for name, shape in shapes.items()}
    return result | {at + "mlp.gate.e_score_correction_bias": ("F32", (experts,))}


def write_model(folder: Path, layers: int, experts: int) -> int:
    """Random weights, about 0.02 in size: the same 64 MiB again and again, at ever other places. Returns the bytes."""
    random = np.random.default_rng(0)
    block = (random.standard_normal(1 << 25, np.float32) * 0.02).astype("<f4").view(np.uint32) >> 16
    pool = block.astype(np.uint16).tobytes()
    weight_map: dict[str, str] = {}
    total = 0
    ends = {"model.embed_tokens.weight": ("BF16", (VOCABULARY, H)), "model.norm.weight": ("BF16", (H,))}
    ends["lm_head.weight"] = ("BF16", (VOCABULARY, H))
    for number, shapes in enumerate([ends, *(layer_shapes(layer, experts) for layer in range(layers))]):
        file = f"model-{number + 1:05d}-of-{layers + 1:05d}.safetensors"
        entries = []
        for name, (dtype, shape) in shapes.items():
            size = int(np.prod(shape)) * (4 if dtype == "F32" else 2)
            entries.append((name, dtype, shape, size))
        entries.sort(key=lambda entry: entry[1] != "F32")
        with open(folder / file, "wb") as out:
            out.write(serialize_header(entries, {}))
            for name, dtype, shape, size in entries:
                if len(shape) == 1:
                    one = np.full(shape, 0x3F80 if dtype == "BF16" and not name.endswith("bias") else 0, np.uint16)
                    out.write(one.tobytes() * (2 if dtype == "F32" else 1))
                else:
                    shift = 2 * len(weight_map) * 4099 % len(pool)  # each matrix begins elsewhere in the block
                    left = size
                    while left:
                        left -= out.write(pool[shift : shift + left])
                        shift = 0
                weight_map[name] = file
                total += size
            out.flush()
            os.fsync(out.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    config = CONFIG | {
        "num_hidden_layers": layers,
        "n_routed_experts": experts,
        "indexer_types": ["full"] + ["shared"] * (layers - 1),
        "mlp_layer_types": ["sparse"] * layers,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=60, help="of checkpoint to write; a layer takes 19.8")
    parser.add_argument("--experts", type=int, default=EXPERTS, help="fewer for a quick look; not a full-size layer")
    parser.add_argument("--folder", type=Path, help="scratch folder on the disk to measure")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--length", type=int, default=2048)
    args = parser.parse_args()
    layer_bytes = sum(int(np.prod(shape)) * 2 for _, shape in layer_shapes(1, args.experts).values())
    layers = max(2, int(args.gigabytes * 1e9 // layer_bytes))
    folder = Path(tempfile.mkdtemp(dir=args.folder, prefix="halfbyte-stream-"))
    try:
        began = time.perf_counter()
        total = write_model(folder, layers, args.experts)
        print(f"wrote {total / 1e9:.1f} GB, {layers} layers, in {time.perf_counter() - began:.0f} s", flush=True)
        random = torch.Generator().manual_seed(0)
        count = max(1, args.tokens // args.length)
        ids = [torch.randint(0, VOCABULARY, (args.length,), generator=random) for _ in range(count)]
        with Streamed.open(folder, device=args.device) as model:
            watch = Watch(args.experts, Rule())
            model.start(ids)
            while model.next_layer < model.layers:
                model.step(watch)
                watch.settle()
            stats = model.stats
            document = stats.as_json()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(args, stats.layers[1:], layer_bytes, document)


def report(args: argparse.Namespace, layers: list[Any], layer_bytes: int, document: dict[str, Any]) -> None:
    """Print, and keep as a row. The first layer is left out: it warms up the libraries."""
    rows = [
        [
            str(one.layer),
            f"{one.bytes / 1e9:.1f}",
            *(f"{getattr(one, name):.2f}" for name in ("read", "copy", "compute", "wait", "wall")),
            f"{one.overlap:.0%}",
        ]
        for one in layers
    ]
    show("seconds a layer", ["layer", "GB", "read", "copy", "compute", "wait", "wall", "overlap"], rows)
    wall, read = (float(np.median([getattr(one, name) for one in layers])) for name in ("wall", "read"))
    work = float(np.median([one.copy + one.compute for one in layers]))
    bound = "reading" if read > work else "computing"
    overlap = float(np.median([one.overlap for one in layers]))
    rss, cuda = document["peak_rss_bytes"], document["peak_cuda_bytes"]
    print(f"\nbound by {bound}: read at {layer_bytes / read / 1e9:.2f} GB/s; overlap {overlap:.0%} of the slower")
    print(f"{LAYERS} such layers: {LAYERS * wall / 60:.1f} min (extrapolated from {len(layers)} layers)")
    print(f"peak memory {rss / 1e9:.1f} GB" + ("" if cuda is None else f", on the GPU {cuda / 1e9:.1f} GB"))
    row = {
        "experts": args.experts,
        "tokens": args.tokens,
        "length": args.length,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "layer_bytes": layer_bytes,
        "median": {"wall": wall, "read": read, "work": work, "overlap": overlap},
        "bound": bound,
        "minutes_78_layers": LAYERS * wall / 60,
        "torch": torch.__version__,
        **document,
    }
    record("stream", row)


if __name__ == "__main__":
    main()
