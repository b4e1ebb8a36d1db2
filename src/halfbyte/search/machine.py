"""`--fit`: which choices a machine can serve, by the planner."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from halfbyte.errors import UsageError, said
from halfbyte.plan.hardware import Gpu, find_gpu
from halfbyte.plan.options import PlanOptions
from halfbyte.plan.planner import plan_for
from halfbyte.plan.result import Plan
from halfbyte.plan.target import PlannedModel
from halfbyte.search.knapsack import Choice
from halfbyte.search.options import SearchOptions


def fitting(
    model: PlannedModel, options: SearchOptions, choices: Sequence[Choice], text_of: Callable[[Choice], str]
) -> tuple[Choice, Plan]:
    """Of a front the choice of least damage that fits `options.fit`, and its plan.

    model: the source. text_of: the recipe of a choice. Raises UsageError for a machine that is none, that holds the
    source as it is, or that holds no choice.
    """
    gpu, gpus = _machine(options.fit or "")
    wanted = PlanOptions(context=options.context, concurrency=options.concurrency)
    with tempfile.TemporaryDirectory(prefix="halfbyte-search-") as folder:

        def planned(choice: Choice) -> Plan:
            file = Path(folder) / "recipe.yaml"
            file.write_text(text_of(choice))
            return plan_for(model.with_recipe(str(file)), gpu, gpus, wanted)

        if plan_for(model, gpu, gpus, wanted).fits:
            raise UsageError(said("{fit} {machine}: the source fits as it is", machine=options.fit))
        low, high, found = 1, len(choices) - 1, None  # choice 0 is the source; the more is saved the sooner it fits
        while low <= high:
            middle = (low + high) // 2
            plan = planned(choices[middle])
            if plan.fits:
                found, high = (choices[middle], plan), middle - 1
            else:
                low = middle + 1
    if found is None:
        hint = said("see halfbyte plan; a larger machine, or less {context}")
        raise UsageError(
            said("{fit} {machine}: does not fit with all that engines load in four bits", machine=options.fit),
            hint=hint,
        )
    return found


def _machine(text: str) -> tuple[Gpu, int]:
    name, _, count = text.strip().lower().rpartition("x")
    if not name or not count.isdigit() or not 0 < int(count) < 10_000:
        raise UsageError(said("{fit} {text!r}: wanted GPUxCOUNT, for instance b200x8", text=text[:60]))
    return find_gpu(name.strip()), int(count)
