"""What each recipe costs the tiny model, by the machinery of `halfbyte compare`: bytes, KL, perplexity, by language.

    python -m benchmarks.compare.compare_tiny [--windows 16]

Window i is tokens 4096 i to 4096 i + 1023 of heldout.txt. Rows named by a recipe are checkpoints written by
`halfbyte quantize`; the others are copies of the BF16 checkpoint whose matrices were rounded and decoded, for formats
and roles that no engine loads.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.quantize.rounded_copy import rounded_copy
from benchmarks.table import ROOT, record, show
from halfbyte.api import quantize
from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.compare.lockstep import Lockstep, Spans
from halfbyte.compare.opening import Opening
from halfbyte.compare.summary import slices, summary
from halfbyte.data.documents import load
from halfbyte.data.tokenizer import Tokenizer, open_tokenizer
from halfbyte.formats import fp8_block
from halfbyte.formats.nvfp4 import stored as nvfp4
from halfbyte.formats.storage import StorageFormat
from halfbyte.models import roles_of
from halfbyte.models.roles import Role, TensorRole
from halfbyte.progress import Plain

TINY = ROOT / "examples/tiny-glm"
LINEARS = {Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP, Role.ATTENTION}


def windows(tokenizer: Tokenizer, path: Path, count: int) -> None:
    text = (TINY / "heldout.txt").read_text("utf-8")
    ids = tokenizer.encode(text)
    with open(path, "w") as file:
        for i in range(count):
            window = ids[4096 * i : 4096 * i + 1024]
            korean = sum("\uac00" <= letter <= "\ud7a3" for letter in tokenizer.decode(window))
            row = {"input_ids": window, "language": "ko" if korean > 200 else "en"}
            file.write(json.dumps(row) + "\n")


def by_role(*roles: Role, but: tuple[str, ...] = ()) -> Callable[[TensorRole], bool]:
    return lambda role: role.role in roles and role.projection not in but


def bytes_of(chosen: Callable[[TensorRole], bool], form: StorageFormat) -> int:
    with Checkpoint.open(TINY) as source:
        entries = inventory(source.tensors, roles_of(source.config))
        return sum(
            form.bytes((entry.shape[0], entry.shape[1]))
            if len(entry.shape) == 2 and chosen(entry.role)
            else entry.bytes
            for entry in entries
        )


def measured(data: Path, models: list[tuple[str, Path, str | None, int]]) -> dict[str, dict[str, Any]]:
    """Figures of all candidates from one pass, the baseline run once."""
    documents = load([str(data)], open_tokenizer(TINY)).documents
    ids = [torch.from_numpy(document.ids) for document in documents]
    job = Spans(ids, [slice(0, len(one)) for one in ids], len(ids))
    with ExitStack() as stack:
        wanted = [
            (stack.enter_context(Checkpoint.open(folder)), activations)
            for folder, activations in [(TINY, None), *((folder, activations) for _, folder, activations, _ in models)]
        ]
        base, *candidates = stack.enter_context(Opening("cpu").models(wanted))
        differences = Lockstep(base, candidates, job).run(Plain(), 1_000_000)
    return {
        label: {"bytes": size}
        | summary(difference.tokens)
        | {"slices": slices(["language"], documents, difference.tokens), "layers": difference.layers}
        for (label, _, _, size), difference in zip(models, differences, strict=True)
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--windows", type=int, default=16)
    chosen = options.parse_args()
    everything = by_role(*(set(Role) - {Role.NORM}), but=("weights_proj",))
    inner = by_role(*LINEARS, Role.INDEXER, but=("weights_proj",))
    copies: dict[str, tuple[Callable[[TensorRole], bool], StorageFormat]] = {
        "FP8, all linears (128 x 128)": (by_role(*LINEARS), fp8_block.FORMAT),
        "shared experts": (by_role(Role.SHARED_EXPERT), nvfp4.FORMAT),
        "attention": (by_role(Role.ATTENTION), nvfp4.FORMAT),
        "indexer (wq_b, wk)": (by_role(Role.INDEXER, but=("weights_proj",)), nvfp4.FORMAT),
        "all linears but router, weights_proj, ends": (inner, nvfp4.FORMAT),
        "everything but norms and weights_proj": (everything, nvfp4.FORMAT),
    }
    recipes = ("nvfp4-routed-experts", "nvfp4-experts-and-shared", "nvfp4-mlp")
    models: list[tuple[str, Path, str | None, int]] = []
    with tempfile.TemporaryDirectory() as name, Checkpoint.open(TINY) as source:
        work = Path(name)
        for recipe in recipes:
            size = quantize(TINY, work / recipe, recipe=recipe).bytes_out
            models.append((f"`{recipe}`", work / recipe, None, size))
            if recipe == recipes[0]:
                models.append((f"`{recipe}`, W4A4", work / recipe, "a4-sim", size))
        for label, (role, form) in copies.items():
            rounded_copy(source, work / label, role, form)
            models.append((label, work / label, None, bytes_of(role, form)))
        data = work / "windows.jsonl"
        windows(open_tokenizer(TINY), data, chosen.windows)
        results = measured(data, models)
    base = results[models[0][0]]["perplexity"]["base"]
    with Checkpoint.open(TINY) as source:
        rows = [["BF16", f"{source.bytes / 1e6:.2f}", "0", f"{base:.3f}", "1", "100.0%", "0", "0"]]
    for label, row in results.items():
        kl, ratio = row["kl"], row["perplexity"]
        languages = [row["slices"]["language"].get(language) for language in ("en", "ko")]
        rows.append(
            [
                label,
                f"{row['bytes'] / 1e6:.2f}",
                f"{kl['mean']:.4f} [{kl['low']:.4f}, {kl['high']:.4f}]",
                f"{ratio['candidate']:.3f}",
                f"{ratio['ratio']:.4f} [{ratio['low']:.4f}, {ratio['high']:.4f}]",
                f"{row['top1_agreement']['mean']:.1%}",
                *("-" if one is None else f"{one['kl']['mean']:.4f}" for one in languages),
            ]
        )
    columns = ["quantized", "MB", "KL, nats [95 %]", "perplexity", "ratio [95 %]", "top-1", "KL, English", "KL, Korean"]
    show("tiny-glm against its BF16", columns, rows)
    record("compare_tiny", {"windows": chosen.windows, "results": results})


if __name__ == "__main__":
    main()
