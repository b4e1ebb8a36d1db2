"""`search`: which layers' experts, shared experts and dense MLPs to make four bits, under a size.

1. each group alone is rounded and its damage measured, all in one pass over the weights (`measured`, `damage`)
2. all undominated trades of size against the sum of damages are found exactly (`knapsack`)
3. the trade that fits the budget, its neighbours, the usual recipes and some points of the front are measured whole, in
   a second pass; while a neighbour damages less, its neighbours in another (`descent`); the best is written as a recipe
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import write_whole
from halfbyte.compare.checks import check_context
from halfbyte.data.documents import load
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.disk import check_output, check_work
from halfbyte.errors import OutputError, UsageError
from halfbyte.formats.modelopt import WITH_ACTIVATIONS
from halfbyte.formats.nvfp4.stored import FORMAT as NVFP4
from halfbyte.formats.storage import StorageFormat
from halfbyte.models import roles_of
from halfbyte.models.roles import Role
from halfbyte.plan.target import resolve
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.job import plan_job
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.search.descent import descend
from halfbyte.search.groups import Group, groups_of, recipe_of
from halfbyte.search.knapsack import Choice, Item, cheapest, choice_of, front, near
from halfbyte.search.machine import fitting
from halfbyte.search.measured import Measured
from halfbyte.search.offered import formats_beside, why_not
from halfbyte.search.options import SearchOptions

PUBLISHED = "all experts"
USUAL: dict[str, tuple[Role, ...]] = {
    PUBLISHED: (Role.ROUTED_EXPERT,),
    "experts and shared": (Role.ROUTED_EXPERT, Role.SHARED_EXPERT),
    "everything": tuple(Role),
}
"""What the choice is held against; everything that engines load, that is. The first is the published recipe."""
NEIGHBOURS = 32
"""Measured beside the trade of least summed damage: sums overstate, and not all alike."""
CHOSEN = "chosen"
BESIDE_PUBLISHED = "found, no larger than all experts"


@dataclass(frozen=True)
class SearchResult:
    """groups: each with its damage, nats of KL, and under `others` bytes and damage in formats that are not offered.
    front: bytes of the checkpoint and sum of damages of all best trades, with `kl` where it was measured whole.

    chosen, usual, beside_published (the best trade that is no larger than the published recipe): with `kl` as measured
    beside `predicted_kl`, the sum. recipe: YAML text for `quantize`. not_offered: format -> why. plan: with `fit`.
    """

    budget_bytes: int
    source_bytes: int
    parameters: int
    groups: list[dict[str, Any]]
    front: list[dict[str, Any]]
    chosen: dict[str, Any]
    usual: list[dict[str, Any]]
    beside_published: dict[str, Any]
    not_offered: dict[str, str]
    recipe: str
    output: str | None
    plan: dict[str, Any] | None = None

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
    forms: dict[str, StorageFormat] = {NVFP4.name: NVFP4} | formats_beside(options.also)
    with Checkpoint.of(src) as source:
        _check_places(source, options)
        tokenizer = open_tokenizer(source.folder)
        groups = groups_of(source, NVFP4)
        parameters = sum(entry.parameters for entry in inventory(source.tensors, roles_of(source.config)))
        budget = options.budget_bytes(parameters)
        _best(source, groups, _ends(groups), budget, options)  # a budget out of reach is said before the work
        documents = load(
            options.data, tokenizer, max_length=options.max_length, tokens=options.tokens, seed=options.seed
        )
        check_context(documents, tokenizer.context)
        with Measured.opened(source, documents.documents, options, progress) as measured:
            costs = measured.alone(groups, forms)
            damages = [cost[NVFP4.name] for cost in costs]
            items = [Item(g.bytes_before - g.bytes_after, kl) for g, kl in zip(groups, damages, strict=True)]
            choices = front(items)
            best, plan = _best(source, groups, choices, budget, options)
            wanted = {name: choice_of(items, [g.role in roles for g in groups]) for name, roles in USUAL.items()}
            beside = cheapest(choices, wanted[PUBLISHED].saved) or choices[-1]
            points = _spread(choices, options.verify)
            (wanted[CHOSEN], wanted[BESIDE_PUBLISHED]), kl_of = descend(
                [
                    (best, lambda now: _fitting(source, groups, near(items, now, best.saved, NEIGHBOURS), budget)),
                    (beside, lambda now: near(items, now, wanted[PUBLISHED].saved, NEIGHBOURS)),
                ],
                lambda some: measured.whole([[groups[i] for i in one.items()] for one in some], NVFP4),
                [*wanted.values(), *(choices[point] for point in points)],
            )
        damage = dict(zip((group.label for group in groups), damages, strict=True))
        rows = {name: _row(name, one, groups, damage, kl_of[one.taken], source.bytes) for name, one in wanted.items()}
        limit = budget or rows[CHOSEN]["bytes"]
        name = Path(options.output).stem if options.output is not None else "searched"
        result = SearchResult(
            limit,
            source.bytes,
            parameters,
            [_group(group, cost, forms) for group, cost in zip(groups, costs, strict=True)],
            [
                _trade(one, groups, source.bytes, kl_of[one.taken] if i in points else None)
                for i, one in enumerate(choices)
            ],
            rows[CHOSEN],
            [rows[name] for name in USUAL],
            rows[BESIDE_PUBLISHED],
            why_not(options.also),
            _recipe_text([groups[i] for i in wanted[CHOSEN].items()], groups, name, rows[CHOSEN], limit),
            None if options.output is None else str(options.output),
            plan,
        )
    if options.output is not None:
        write_whole(Path(options.output), result.recipe.encode())
    return result


def _check_places(source: Checkpoint, options: SearchOptions) -> None:
    if options.work is not None:
        check_work(Path(options.work), source.kept_apart())
    if options.output is not None:
        check_output(Path(options.output), [*source.kept_apart(), *map(Path, options.data)])
        if os.path.lexists(options.output):
            hint = "give another name with -o, or remove it"
            raise OutputError(f"{options.output}: exists already", hint=hint)


def _ends(groups: Sequence[Group]) -> list[Choice]:
    """The source and all that can be saved, as a front of unknown damage."""
    saved = sum(group.bytes_before - group.bytes_after for group in groups)
    return [Choice(0, 0.0, 0), Choice(saved, 0.0, (1 << len(groups)) - 1)]


def _best(
    source: Checkpoint, groups: Sequence[Group], choices: Sequence[Choice], budget: int | None, options: SearchOptions
) -> tuple[Choice, dict[str, Any] | None]:
    """The choice of least damage within the budget, and the plan where a machine is the budget. Raises UsageError."""
    if budget is not None:
        _check_reachable(source, groups, budget)
        return _under(source, groups, choices, budget), None

    def text(choice: Choice) -> str:
        picked = [groups[i] for i in choice.items()]
        return yaml.safe_dump(recipe_of(picked, groups, "searched", "").model_dump(mode="json", exclude_defaults=True))

    best, plan = fitting(resolve(str(source.folder)), options, choices, text)
    return best, plan.as_json()


def _check_reachable(source: Checkpoint, groups: Sequence[Group], budget: int) -> None:
    least = source.bytes - sum(group.bytes_before - group.bytes_after for group in groups)
    if budget < least:
        raise UsageError(
            f"budget of {budget / 1e9:.4g} GB: with all that engines load in four bits the weights still take "
            f"{least / 1e9:.4g} GB"
        )
    if budget >= source.bytes:
        raise UsageError(f"budget of {budget / 1e9:.4g} GB: the source takes {source.bytes / 1e9:.4g} GB as it is")


def _under(source: Checkpoint, groups: Sequence[Group], choices: Sequence[Choice], budget: int) -> Choice:
    """The choice of least damage whose files, headers included, fit the budget."""
    saved = source.bytes - budget
    while True:
        best = cheapest(choices, saved)
        if best is None:
            raise UsageError(
                f"budget of {budget / 1e9:.4g} GB: headers of the files do not fit", hint="give a little more"
            )
        if _fits(source, groups, best, budget):
            return best
        saved = best.saved + 1


def _fitting(
    source: Checkpoint, groups: Sequence[Group], choices: Sequence[Choice], budget: int | None
) -> Sequence[Choice]:
    """Those that fit the budget, if it is one of bytes."""
    return choices if budget is None else [choice for choice in choices if _fits(source, groups, choice, budget)]


def _fits(source: Checkpoint, groups: Sequence[Group], choice: Choice, budget: int) -> bool:
    """With the headers of its files."""
    recipe = recipe_of([groups[i] for i in choice.items()], groups, "searched", "")
    return plan_job(source, recipe, QuantizeOptions.max_shard_bytes).output_bytes <= budget


def _spread(choices: Sequence[Choice], count: int) -> list[int]:
    """Numbers of `count` choices, evenly spaced in what they save; without the source itself."""
    found = list[int]()
    for step in range(1, count + 1):
        saved = choices[-1].saved * step / count
        near = min(range(1, len(choices)), key=lambda i: abs(choices[i].saved - saved))
        found += [near] if near not in found else []
    return found


def _group(group: Group, cost: dict[str, float], forms: dict[str, StorageFormat]) -> dict[str, Any]:
    others = {name: {"bytes": group.bytes_in(forms[name]), "kl": kl} for name, kl in cost.items() if name != NVFP4.name}
    shown = {name: value for name, value in asdict(group).items() if name != "shapes"}
    return shown | {"kl": cost[NVFP4.name], "others": others}


def _row(
    name: str, choice: Choice, groups: Sequence[Group], damage: dict[str, float], kl: float, source_bytes: int
) -> dict[str, Any]:
    picked = [groups[i] for i in choice.items()]
    overrides: list[Any] = []
    roles: list[str] = []
    if picked:
        recipe = recipe_of(picked, groups, name, "")
        overrides = recipe.model_dump(mode="json")["layers"]["overrides"]
        roles = [str(role) for role in recipe.roles]
    return {
        "name": name,
        "bytes": source_bytes - choice.saved,
        "groups": len(picked),
        "predicted_kl": sum(damage[group.label] for group in picked),
        "kl": kl,
        "layers": overrides,
        "roles": roles,
    }


def _trade(choice: Choice, groups: Sequence[Group], source_bytes: int, kl: float | None) -> dict[str, Any]:
    return {
        "bytes": source_bytes - choice.saved,
        "predicted_kl": choice.damage,
        "kl": kl,
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
