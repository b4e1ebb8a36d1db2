"""`search` beside ModelOpt's `auto_quantize`: what either puts into four bits at the same size, and what that damages.

    python -m benchmarks.search.auto_quantize [--model tiny-glm|tiny-qwen] [--bits B ...] [--windows 4] [--methods M]

Both choose between NVFP4 weights (max rule) and 16 bits, for the same linears, by the same windows of held-out text.
ModelOpt scores by gradients (its default) and by KL, decides over fused linears and over a layer's routed experts at
once, and is given effective bits. Ours is then the front's point of no more bytes, or what its neighbours lead to, as
`search` does. Both are measured by Halfbyte's streamed KL over the same windows. ModelOpt
runs in an environment of its own (`make .venv-peers/ready`).
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.compare.tiny_accuracy import ANIMALS, TINY, windows
from benchmarks.search.search import document
from benchmarks.table import ROOT, record, show
from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.formats.nvfp4.stored import FORMAT as NVFP4
from halfbyte.models import roles_of
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import Role, TensorRole
from halfbyte.progress import Silent
from halfbyte.quantize.linears import Linear, split
from halfbyte.search.best_recipe import NEIGHBOURS
from halfbyte.search.descent import Neighbours, descend
from halfbyte.search.groups import Group, groups_of
from halfbyte.search.knapsack import Choice, Item, cheapest, front, near
from halfbyte.search.measured import Measured
from halfbyte.search.options import SearchOptions

PEER = "benchmarks.peers.choose_modelopt"
METHODS = ("gradient", "kl_div")
BITS = {"tiny-glm": [9, 10, 11, 12, 13, 14], "tiny-qwen": [6, 7, 8, 9, 10, 12]}
"""ModelOpt counts what it may not quantize too, the embedding among it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=ANIMALS, default=TINY.name)
    parser.add_argument("--bits", type=float, nargs="+", default=None)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-peers/bin/python")
    asked = parser.parse_args()
    animal, asked.bits = ANIMALS[asked.model], asked.bits or BITS[asked.model]
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.model_max_length = int(1e9)
    texts = windows(tokenizer)
    texts = texts[:: max(1, len(texts) // asked.windows)][: asked.windows]
    with Checkpoint.open(animal) as source:
        roles, groups = roles_of(source.config), groups_of(source, NVFP4)
        linears = split(inventory(source.tensors, roles), roles)[0]
        keep = [f"*{name}" for name in _kept(linears, groups)]
        peers = {method: _ask(asked, animal, texts.tolist(), keep, method) for method in asked.methods}
        theirs = {method: [_parts(roles, linears, one) for one in peers[method]["chosen"]] for method in asked.methods}
        with Measured.opened(source, [document(text) for text in texts], SearchOptions(bits=8), Silent()) as measured:
            began = time.monotonic()
            costs = [one[NVFP4.name] for one in measured.alone(groups, {NVFP4.name: NVFP4})]
            own_s = time.monotonic() - began
            items = [Item(g.bytes_before - g.bytes_after, kl) for g, kl in zip(groups, costs, strict=True)]
            choices = front(items)
            rows: list[dict[str, Any]] = []
            starts: list[tuple[Choice, Neighbours]] = []
            for method in asked.methods:
                for bits, chosen in zip(asked.bits, theirs[method], strict=True):
                    starts.append((cheapest(choices, _saved(chosen)) or choices[-1], _beside(items, _saved(chosen))))
                    rows.append({"method": method, "bits": bits, "peer_mb": (source.bytes - _saved(chosen)) / 1e6})

            def measure(some: Sequence[Choice]) -> list[float]:
                return measured.whole([[groups[i] for i in one.items()] for one in some], NVFP4)

            own, known = descend(starts, measure)
            damages = measured.whole([chosen for method in asked.methods for chosen in theirs[method]], NVFP4)
    for row, (start, _), best, damage in zip(rows, starts, own, damages, strict=True):
        row |= {"peer_kl": damage, "own_summed_kl": known[start.taken], "own_kl": known[best.taken]}
        row["own_mb"] = (source.bytes - best.saved) / 1e6
    cells = [
        [
            row["method"],
            f"{row['bits']:g}",
            f"{row['peer_mb']:.2f}",
            f"{row['own_mb']:.2f}",
            f"{row['peer_kl']:.4f}",
            f"{row['own_kl']:.4f}",
            f"{row['own_kl'] / row['peer_kl']:.3f}" if row["peer_kl"] else "",
        ]
        for row in rows
    ]
    columns = ["its scores", "bits", "its MB", "ours MB", "its KL", "our KL", "ratio"]
    show(f"{animal.name}: ModelOpt's auto_quantize and the front's point of no more bytes", columns, cells)
    seconds = {method: peers[method]["seconds"] for method in asked.methods}
    print(f"choosing: ours {own_s:.0f} s, ModelOpt's {', '.join(f'{n} {s:.0f} s' for n, s in seconds.items())}")
    record(
        "auto_quantize", {"model": animal.name, "windows": len(texts), "own_s": own_s, "peer_s": seconds, "rows": rows}
    )


def _kept(linears: Iterable[Linear], groups: Iterable[Group]) -> list[str]:
    """Ends of the paths of what is no candidate, as ModelOpt matches them."""
    groups = list(groups)
    candidates = {_end(one.role) for one in linears if any(group.holds(one.role) for group in groups)}
    return sorted({_end(one.role) for one in linears} - candidates)


def _end(role: TensorRole) -> str:
    """Without its layer: the dense MLP of one layer and the shared expert of another differ by what is before."""
    path = role.module.split(".")
    return path[-1] if len(path) < 4 else ".".join(path[3:])


def _ask(
    asked: argparse.Namespace, animal: Path, texts: list[list[int]], keep: list[str], method: str
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens.json"
        tokens.write_text(json.dumps(texts))
        words = [str(asked.python), "-m", PEER, "--model", str(animal), "--tokens", str(tokens), "--method", method]
        words += ["--bits", *map(str, asked.bits), "--keep", *keep]
        found: dict[str, Any] = json.loads(
            subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
        )
    return found


def _parts(roles: RoleMap, linears: list[Linear], modules: Iterable[str]) -> list[Group]:
    """What ModelOpt chose, by role and layer. Of fused experts it names the stack's module."""
    chosen: dict[tuple[Role, int], set[str]] = {}
    for module in modules:
        stacked = module.endswith(".experts")
        for one in linears:
            inside = one.role.module.startswith(f"{module}.") if stacked else one.role.module == module
            if inside and one.role.layer is not None and one.role.projection is not None:
                chosen.setdefault((one.role.role, one.role.layer), set()).add(one.role.projection)
    found: list[Group] = []
    for (role, layer), only in sorted(chosen.items(), key=lambda item: item[0][1]):
        mine = [
            one.source
            for one in linears
            if one.role.role is role and one.role.layer == layer and one.role.projection in only
        ]
        shapes = [one.shape for one in mine]
        after = sum(NVFP4.bytes(shape) for shape in shapes)
        parameters, before = sum(a * b for a, b in shapes), sum(one.bytes for one in mine)
        found.append(Group(role, layer, parameters, before, after, only=tuple(sorted(only))))
    return found


def _beside(items: Sequence[Item], saved: int) -> Neighbours:
    return lambda now: near(items, now, saved, NEIGHBOURS)


def _saved(groups: Iterable[Group]) -> int:
    return sum(group.bytes_before - group.bytes_after for group in groups)


if __name__ == "__main__":
    main()
