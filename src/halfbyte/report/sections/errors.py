"""Error by layer and expert: what rounding did to the weights, and to outputs where they were rounded on data."""

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

from halfbyte.evidence.dossier import Dossier
from halfbyte.models.position import position_of
from halfbyte.plots.charts import error_by_expert, finite
from halfbyte.plots.parts import Figure, Section, Table
from halfbyte.report.words import number

MOST_CELLS = 1024
"""Up to which the table has every expert; beyond, a row a layer."""

MOST_COLUMNS = 32


def errors(dossier: Dossier) -> Section:
    title = "Error by layer and expert"
    weights = _weights(dossier)
    outputs = _outputs(dossier)
    if not weights and not outputs:
        return Section(title, missing="No expert was rounded. halfbyte quantize SRC DST makes this evidence.")
    figures = []
    if weights:
        figures.append(_figure("error-weights", weights, "relative error of weights"))
    if outputs:
        figures.append(_figure("error-outputs", outputs, "relative error of outputs"))
    lines = ["Relative error is the root of the squared error over the squared weights, over an expert's linears."]
    return Section(title, lines, figures)


def _weights(dossier: Dossier) -> dict[tuple[int, int], float]:
    """(layer, expert) -> root mean square over its linears."""
    squares: dict[tuple[int, int], list[float]] = {}
    for name, row in dossier.tensors.items():
        place = position_of(name)
        error = float(row.relative_error)
        if place is not None and math.isfinite(error) and abs(error) < 1e100:
            squares.setdefault((place.layer, place.expert), []).append(error**2)
    return {place: math.sqrt(sum(values) / len(values)) for place, values in sorted(squares.items())}


def _outputs(dossier: Dossier) -> dict[tuple[int, int], float]:
    """Of experts that were rounded on data: error of the output on tokens held out."""
    rounded = dossier.rounded_on_data
    if rounded is None:
        return {}
    return {
        (int(layer), expert): float(row.output_error)
        for layer, rows in rounded.experts.items()
        if layer.isdecimal() and len(layer) < 7
        for expert, row in enumerate(rows)
        if row.output_error is not None and math.isfinite(row.output_error)
    }


def _figure(name: str, errors: Mapping[tuple[int, int], float], what: str) -> Figure:
    rows: list[dict[str, Any]] = [
        {"layer": layer, "expert": expert, "error": error} for (layer, expert), error in errors.items()
    ]
    worst = max(errors, key=lambda place: errors[place])
    says = (
        f"Heat map of the {what} by layer and expert, {min(errors.values()):.4f} to {max(errors.values()):.4f}, "
        f"largest at layer {worst[0]}, expert {worst[1]}."
    )
    tables = [_by_layer(errors, what)]
    if len(errors) <= MOST_CELLS and max(expert for _, expert in errors) < MOST_COLUMNS:
        tables.append(_every(errors, what))
    return Figure(name, error_by_expert(finite(rows, "error"), what), says, tables)


def _by_layer(errors: Mapping[tuple[int, int], float], what: str) -> Table:
    layers: dict[int, dict[int, float]] = {}
    for (layer, expert), error in errors.items():
        layers.setdefault(layer, {})[expert] = error
    rows = []
    for layer, experts in sorted(layers.items()):
        worst = max(experts, key=lambda expert: experts[expert])
        rows.append(
            [
                str(layer),
                str(len(experts)),
                *(number(one, "{:.4f}") for one in (min(experts.values()), median(experts.values()), experts[worst])),
                str(worst),
            ]
        )
    return Table(f"{what}, by layer", ["layer", "experts", "least", "median", "largest", "of expert"], rows)


def _every(errors: Mapping[tuple[int, int], float], what: str) -> Table:
    experts = sorted({expert for _, expert in errors})
    rows = [
        [str(layer)] + [number(errors.get((layer, expert)), "{:.4f}") for expert in experts]
        for layer in sorted({layer for layer, _ in errors})
    ]
    return Table(f"{what}, every expert", ["layer", *map(str, experts)], rows)
