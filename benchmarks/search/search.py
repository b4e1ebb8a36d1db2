"""`search` on a lab animal: damages added up against damages measured, on random recipes and on the front.

    python -m benchmarks.search.search [--model tiny-glm|tiny-qwen] [--recipes 24] [--points 8] [--windows 8]

Every group (a role in a layer) is measured alone in one pass over the weights, random recipes and points of the front
whole in a second. The bar: rank correlation of sum and measurement at least 0.95 on random recipes; the front's point
no larger than the published recipe (routed experts) hurts less than that recipe. KL in nats over windows of 1,024
tokens of the held-out text, weights by the max rule, activations in 16 bits.
"""

import argparse
import random
import time
from typing import Any

from scipy.stats import spearmanr
from transformers import AutoTokenizer

from benchmarks.compare.tiny_accuracy import ANIMALS, TINY, windows
from benchmarks.table import record, show
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.document import Document
from halfbyte.formats.nvfp4.stored import FORMAT as NVFP4
from halfbyte.models.roles import Role
from halfbyte.progress import Silent
from halfbyte.search.groups import groups_of
from halfbyte.search.knapsack import Item, cheapest, front
from halfbyte.search.measured import Measured
from halfbyte.search.options import SearchOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=ANIMALS, default=TINY.name)
    parser.add_argument("--recipes", type=int, default=24)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--windows", type=int, default=8)
    asked = parser.parse_args()
    animal = ANIMALS[asked.model]
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.model_max_length = int(1e9)
    texts = windows(tokenizer)
    texts = texts[:: max(1, len(texts) // asked.windows)][: asked.windows]
    with Checkpoint.open(animal) as source:
        groups = groups_of(source, NVFP4)
        documents = [document(text) for text in texts]
        with Measured.opened(source, documents, SearchOptions(bits=8), Silent()) as measured:
            began = time.monotonic()
            costs = [one[NVFP4.name] for one in measured.alone(groups, {NVFP4.name: NVFP4})]
            cost_s = time.monotonic() - began
            choices = front([Item(g.bytes_before - g.bytes_after, kl) for g, kl in zip(groups, costs, strict=True)])
            chance = random.Random(0)
            recipes = []
            for _ in range(asked.recipes):
                share = chance.uniform(0.15, 0.95)
                recipes.append([i for i in range(len(groups)) if chance.random() < share] or [0])
            points = [choices[round(k * (len(choices) - 1) / asked.points)].items() for k in range(1, asked.points + 1)]
            published = [i for i, group in enumerate(groups) if group.role is Role.ROUTED_EXPERT]
            saved = sum(groups[i].bytes_before - groups[i].bytes_after for i in published)
            beside = cheapest(choices, saved)
            wanted = [*recipes, *points, published, beside.items() if beside else published]
            began = time.monotonic()
            kls = measured.whole([[groups[i] for i in one] for one in wanted], NVFP4)
            whole_s = time.monotonic() - began
        size = source.bytes
    added = [sum(costs[i] for i in one) for one in wanted]
    sizes = [size - sum(groups[i].bytes_before - groups[i].bytes_after for i in one) for one in wanted]
    count = len(recipes)
    correlation = float(spearmanr(added[:count], kls[:count]).statistic)
    names = ["random recipe"] * count + ["front"] * len(points) + ["published", "front, no larger"]
    columns = ["", "MB", "groups", "KL added up", "KL measured", "ratio"]
    rows: list[dict[str, Any]] = [
        {"name": name, "mb": one_size / 1e6, "groups": len(one), "added": total, "measured": kl}
        for name, one_size, one, total, kl in zip(names, sizes, wanted, added, kls, strict=True)
    ]
    cells = []
    for row in rows:
        figures = [f"{row['added']:.4f}", f"{row['measured']:.4f}", f"{row['added'] / row['measured']:.2f}"]
        cells.append([row["name"], f"{row['mb']:.2f}", str(row["groups"]), *figures])
    show(f"{animal.name}: rank correlation on {count} random recipes {correlation:.4f} (bar 0.95)", columns, cells)
    print(f"{len(groups)} groups alone {cost_s:.1f} s, {len(wanted)} recipes whole {whole_s:.1f} s")
    setting = {"model": animal.name, "windows": len(documents), "cost_s": cost_s, "whole_s": whole_s}
    record("search", setting | {"rank_correlation": correlation, "rows": rows})


def document(ids: Any) -> Document:
    import numpy as np

    return Document(np.asarray(ids, dtype=np.int64), {}, "heldout.txt", 1)


if __name__ == "__main__":
    main()
