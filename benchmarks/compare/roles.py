"""What four bits in one role cost a lab animal: weights by the max rule, W4A16, perplexity and KL to BF16.

    python -m benchmarks.compare.roles [--model tiny-glm|tiny-qwen] [--windows 16]

The model is transformers in float32; the matrices of a role are encoded and decoded in place, those that share a
`weight_scale_2` together. Windows and measures are those of tiny_accuracy.py. KL per million parameters is what a
selective recipe goes by.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.chat.runtime_accuracy import load
from benchmarks.compare.tiny_accuracy import ANIMALS, TINY, log_probabilities, perplexity, windows
from benchmarks.table import record, show
from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.nvfp4.stored import FORMAT as NVFP4
from halfbyte.models import roles_of
from halfbyte.models.roles import Role
from halfbyte.quantize.linears import Linear, split
from halfbyte.quantize.units import sharing, unit_key

SETS: dict[str, tuple[Role, ...]] = {
    "nothing": (),
    "routed experts": (Role.ROUTED_EXPERT,),
    "shared experts": (Role.SHARED_EXPERT,),
    "attention": (Role.ATTENTION,),
    "indexer": (Role.INDEXER,),
    "dense MLP": (Role.DENSE_MLP,),
    "experts, shared and dense MLPs": (Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP),
    "all linears but router and head": (
        Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP, Role.ATTENTION, Role.INDEXER,
    ),
    "head": (Role.LM_HEAD,),
    "embedding": (Role.EMBEDDING,),
}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", choices=ANIMALS, default=TINY.name)
    options.add_argument("--windows", type=int, default=16)
    chosen = options.parse_args()
    animal = ANIMALS[chosen.model]
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.model_max_length = int(1e9)
    tokens = windows(tokenizer)[: chosen.windows]
    with Checkpoint.open(animal) as checkpoint:
        roles = roles_of(checkpoint.config)
        linears, _ = split(inventory(checkpoint.tensors, roles), roles)
    base: Any = None
    rows: list[dict[str, Any]] = []
    for name, wanted in SETS.items():
        packable = (linear for linear in linears if linear.source.shape[1] % BLOCK_SIZE == 0)
        picked = [linear for linear in packable if linear.role.role in wanted]
        if wanted and not picked:
            continue
        model = load(animal)
        for group in _groups(picked):
            matrices = [_weight(model, linear) for linear in group]
            for matrix, rounded in zip(matrices, NVFP4.rounded([m.numpy() for m in matrices]), strict=True):
                matrix.copy_(torch.from_numpy(rounded))
        logp = log_probabilities(model, tokens)
        base = logp if base is None else base
        kl = (base.exp() * (base - logp)).sum(-1).mean().item()
        count = sum(linear.source.shape[0] * linear.source.shape[1] for linear in picked)
        agreement = (base.argmax(-1) == logp.argmax(-1)).float().mean().item()
        rows.append(
            {"roles": name, "parameters": count, "perplexity": perplexity(logp, tokens), "kl": kl, "top1": agreement}
        )
        print(rows[-1], flush=True)
    cells = [
        [
            row["roles"],
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['perplexity']:.3f}",
            f"{row['kl']:.5f}",
            f"{row['top1']:.1%}",
            f"{row['kl'] / row['parameters'] * 1e6:.4f}" if row["parameters"] else "-",
        ]
        for row in rows
    ]
    columns = ["in NVFP4", "parameters", "perplexity", "KL to BF16", "top-1", "KL per million parameters"]
    show(f"{animal.name}, {len(tokens)} windows of 1,024 tokens", columns, cells)
    record("roles", {"model": animal.name, "windows": len(tokens), "rows": rows})


def _groups(linears: list[Linear]) -> Iterator[tuple[Linear, ...]]:
    units: dict[object, list[Linear]] = {}
    for linear in linears:
        units.setdefault(unit_key(linear.role), []).append(linear)
    for unit in units.values():
        yield from sharing(unit)


def _weight(model: Any, linear: Linear) -> torch.Tensor:
    """The matrix in the model, experts in transformers' stacks: gate rows first."""
    role = linear.role
    if role.expert is None:
        whole: torch.Tensor = model.get_parameter(f"{role.module}.weight").data
        return whole
    experts = model.model.layers[role.layer].mlp.experts
    stack: torch.Tensor = (experts.down_proj if role.projection == "down_proj" else experts.gate_up_proj).data
    both = stack[role.expert]
    if role.projection == "down_proj":
        return both
    half = len(both) // 2
    return both[:half] if role.projection == "gate_proj" else both[half:]


if __name__ == "__main__":
    main()
