"""The plan by phase: what one GPU holds, and when."""

import math
from typing import Any

from halfbyte.evidence.plan import PlanDocument
from halfbyte.plots.charts import finite, memory_by_phase
from halfbyte.plots.parts import Figure, Section, Table
from halfbyte.report.words import number, short, size

TITLE = "Plan by phase"
MISSING = (
    "Not planned yet. halfbyte plan TARGET --gpu b200 --gpus 8 --context 1M -o TARGET/plan.json makes this evidence."
)
SHOWN = 6
"""Terms with a colour of their own; the others are summed up."""


def planned(plan: PlanDocument | None) -> Section:
    if plan is None:
        return Section(TITLE, missing=MISSING)
    d, gpu = plan.deployment, plan.per_gpu
    lines = [
        f"{'Fits' if plan.fits else 'Does not fit'}: {d.gpus} x {short(d.gpu, 40)}, {short(d.engine, 40)}, tp {d.tp}, "
        f"context {d.context}; {plan.kv_tokens} tokens of KV cache, {plan.max_concurrency} sequences. Peak "
        f"{number(gpu.peak_gib, '{:.1f}')} of {number(gpu.usable_gib, '{:.1f}')} GiB in {short(plan.peak_phase, 40)}."
    ]
    lines += [f"Planned for a checkpoint of {size(plan.checkpoint_bytes)}."]
    lines += [short(problem) for problem in plan.problems]
    terms = Table(
        "terms of one GPU",
        ["term", "phase", "formula", "source", "GiB"],
        [
            [
                short(term.name, 80),
                short(term.phase, 40),
                short(term.formula),
                short(term.source, 120),
                number(term.gib, "{:.3f}"),
            ]
            for term in plan.terms
        ],
        text=4,
    )
    peaks = Table(
        "peak by phase", ["phase", "GiB"], [[short(k, 40), number(v, "{:.2f}")] for k, v in plan.peaks_gib.items()]
    )
    figures = figures_of(plan.as_json(), [peaks, terms])
    return Section(TITLE, lines, figures, () if figures else [peaks, terms])


def figures_of(plan: dict[str, Any], tables: list[Table]) -> list[Figure]:
    """A bar for each phase. plan: as plan.json has it."""
    phases, terms = list(plan["peaks_gib"]), finite(plan["terms"], "gib")
    largest = [term["name"] for term in sorted(terms, key=lambda term: -term["gib"])[:SHOWN]]
    rows = []
    for phase in phases:
        sums = dict.fromkeys([*largest, "others"], 0.0)
        for term in terms:
            if _is_live(term["phase"], phase, phases):
                sums[term["name"] if term["name"] in largest else "others"] += term["gib"]
        rows += [
            {"phase": short(phase, 40), "term": short(name, 60), "gib": gib, "at": at}
            for at, (name, gib) in enumerate(sums.items())
        ]
    usable, peak = plan["per_gpu"]["usable_gib"], plan["per_gpu"]["peak_gib"]
    if not rows or not math.isfinite(usable):
        return []
    says = f"Memory of one GPU by phase: peak {number(peak, '{:.1f}')} of {number(usable, '{:.1f}')} GiB."
    return [Figure("plan", memory_by_phase(rows, usable), says, tables)]


def _is_live(stated: str, phase: str, phases: list[str]) -> bool:
    """stated: `all`, `serving` (all but loading), or names joined by ` + `."""
    return stated == "all" or (stated == "serving" and phase != phases[0]) or phase in stated.split(" + ")
