"""`search`: which layers' experts, shared experts and dense MLPs to make four bits, under a size.

1. each group alone is rounded and its damage measured (`damage`)
2. all undominated trades of size against the sum of damages are found exactly (`knapsack`)
3. the trade that fits the budget is written as a recipe and measured, beside the usual recipes
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import output_error, write_whole
from halfbyte.compare.checks import check_context
from halfbyte.data.documents import load
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.disk import check_output, check_work
from halfbyte.errors import OutputError, UsageError
from halfbyte.formats.modelopt import WITH_ACTIVATIONS
from halfbyte.formats.nvfp4.stored import FORMAT as NVFP4
from halfbyte.models import roles_of
from halfbyte.models.roles import Role
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.job import plan_job
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.search.groups import Group, groups_of, recipe_of
from halfbyte.search.knapsack import Choice, Item, cheapest, front
from halfbyte.search.options import SearchOptions

USUAL: dict[str, tuple[Role, ...]] = {
    "all experts": (Role.ROUTED_EXPERT,),
    "experts and shared": (Role.ROUTED_EXPERT, Role.SHARED_EXPERT),
    "everything": tuple(Role),
}
"""What the choice is held against; everything that engines load, that is."""


@dataclass(frozen=True)
class SearchResult:
    """groups: each with its damage, nats of KL. front: bytes of the checkpoint and sum of damages of all best trades.

    chosen and usual: with `kl` as measured beside `predicted_kl`, the sum. recipe: YAML text for `quantize`.
    """

    budget_bytes: int
    source_bytes: int
    parameters: int
    groups: list[dict[str, Any]]
    front: list[dict[str, Any]]
    chosen: dict[str, Any]
    usual: list[dict[str, Any]]
    recipe: str
    output: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def search(
    src: str | Path, options: SearchOptions | None = None, *, progress: Progress | None = None, **given: Any
) -> SearchResult:
    """Find the recipe of least damage whose checkpoint takes at most the size that is asked for.

    given: fields of SearchOptions by name, instead of `options`. Raises HalfbyteError; UsageError if the budget is
    below what four bits can reach or above the source's own size.
    """
    options, progress = options or SearchOptions(**given), progress or Silent()
    output = options.output
    if options.work is not None:
        check_work(Path(options.work), [Path(src)])
    if output is not None:
        check_output(Path(output), [Path(src), *map(Path, options.data)])
    if output is not None and os.path.lexists(output):
        raise OutputError(f"{output}: exists already", hint="give another name with -o, or remove it")
    tokenizer = open_tokenizer(src)
    with Checkpoint.open(src) as source:
        groups = groups_of(source, NVFP4)
        parameters = sum(entry.parameters for entry in inventory(source.tensors, roles_of(source.config)))
        budget = options.budget_bytes(parameters)
        _check_reachable(source, groups, budget)
        documents = load(
            options.data, tokenizer, max_length=options.max_length, tokens=options.tokens, seed=options.seed
        )
        check_context(documents, tokenizer.context)
        measured = _Measured(source, documents.documents, options, progress)
        damages = measured.kl([[group] for group in groups])
        choices = front([Item(g.bytes_before - g.bytes_after, kl) for g, kl in zip(groups, damages, strict=True)])
        best = _fitting(source, groups, choices, budget)
        wanted = {"chosen": [groups[i] for i in best.items()]}
        for name, roles in USUAL.items():
            wanted[name] = [group for group in groups if group.role in roles]
        kls = measured.kl([picked for picked in wanted.values() if picked])
    damage = dict(zip((group.label for group in groups), damages, strict=True))
    rows = [
        _row(name, picked, groups, damage, kl, source.bytes)
        for (name, picked), kl in zip(((n, p) for n, p in wanted.items() if p), kls, strict=True)
    ]
    name = Path(output).stem if output is not None else "searched"
    text = _recipe_text(wanted["chosen"], groups, name, rows[0], budget)
    if output is not None:
        write_whole(Path(output), text.encode())
    return SearchResult(
        budget,
        source.bytes,
        parameters,
        [asdict(group) | {"kl": kl} for group, kl in zip(groups, damages, strict=True)],
        [_trade(choice, groups, source.bytes) for choice in choices],
        rows[0],
        rows[1:],
        text,
        None if output is None else str(output),
    )


class _Measured:
    """The data and the way to measure on it."""

    def __init__(
        self, source: Checkpoint, documents: Sequence[Any], options: SearchOptions, progress: Progress
    ) -> None:
        import torch

        from halfbyte.compare.lockstep import Spans
        from halfbyte.compare.opening import Opening
        from halfbyte.compare.tokens import LOGIT_BYTES

        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._source, self._progress = source, progress
        self._scratch = None if options.work is None else Path(options.work)
        self._opening = Opening(device, options.memory_budget, self._scratch)
        ids = [torch.from_numpy(document.ids) for document in documents]
        spans = [slice(0, len(one)) for one in ids]
        self._job = Spans(ids, spans, len(ids), self._opening.logit_bytes or LOGIT_BYTES)

    def kl(self, choices: Sequence[Sequence[Group]]) -> list[float]:
        """Mean KL(source ‖ choice) over all tokens, in nats."""
        import numpy as np

        from halfbyte.search.damage import measure

        try:
            if self._scratch is not None:
                self._scratch.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="search-", dir=self._scratch) as scratch:
                found = measure(self._source, choices, NVFP4, self._job, self._opening, Path(scratch), self._progress)
        except OSError as error:
            raise output_error(self._scratch or Path(tempfile.gettempdir()), error) from None
        return [float(np.concatenate([one.kl for one in difference.tokens]).mean()) for difference in found]


def _check_reachable(source: Checkpoint, groups: Sequence[Group], budget: int) -> None:
    least = source.bytes - sum(group.bytes_before - group.bytes_after for group in groups)
    if budget < least:
        raise UsageError(
            f"budget of {budget / 1e9:.4g} GB: with all that engines load in four bits the weights still take "
            f"{least / 1e9:.4g} GB"
        )
    if budget >= source.bytes:
        raise UsageError(f"budget of {budget / 1e9:.4g} GB: the source takes {source.bytes / 1e9:.4g} GB as it is")


def _fitting(source: Checkpoint, groups: Sequence[Group], choices: Sequence[Choice], budget: int) -> Choice:
    """The choice of least damage whose files, headers included, fit the budget."""
    saved = source.bytes - budget
    while True:
        best = cheapest(choices, saved)
        if best is None:
            raise UsageError(
                f"budget of {budget / 1e9:.4g} GB: headers of the files do not fit", hint="give a little more"
            )
        picked = [groups[i] for i in best.items()]
        written = plan_job(
            source, recipe_of(picked, groups, "searched", ""), QuantizeOptions.max_shard_bytes
        ).output_bytes
        if written <= budget:
            return best
        saved = best.saved + 1


def _row(
    name: str, picked: Sequence[Group], groups: Sequence[Group], damage: dict[str, float], kl: float, source_bytes: int
) -> dict[str, Any]:
    recipe = recipe_of(picked, groups, name, "")
    return {
        "name": name,
        "bytes": source_bytes - sum(group.bytes_before - group.bytes_after for group in picked),
        "groups": len(picked),
        "predicted_kl": sum(damage[group.label] for group in picked),
        "kl": kl,
        "layers": recipe.model_dump(mode="json")["layers"]["overrides"],
        "roles": [str(role) for role in recipe.roles],
    }


def _trade(choice: Choice, groups: Sequence[Group], source_bytes: int) -> dict[str, Any]:
    return {
        "bytes": source_bytes - choice.saved,
        "predicted_kl": choice.damage,
        "groups": [groups[i].label for i in choice.items()],
    }


def _recipe_text(picked: Sequence[Group], groups: Sequence[Group], name: str, row: dict[str, Any], budget: int) -> str:
    description = (
        f"Found by halfbyte search: least KL for weights of at most {budget:,} bytes. "
        f"{len(picked)} of {len(groups)} groups; KL {row['kl']:.5f} measured, {row['predicted_kl']:.5f} summed."
    )
    document = recipe_of(picked, groups, name, description).model_dump(mode="json", exclude_defaults=True)
    document = {"version": 1} | document | {"algorithm": WITH_ACTIVATIONS}
    for override in document.get("layers", {}).get("overrides", []):
        override["layers"] = list(override["layers"])
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
