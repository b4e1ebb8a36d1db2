"""A chart as SVG: drawn by Vega in the process (vl-convert), then made small and safe to stand in a page.

What Vega writes names two XML namespaces, repeats ids from picture to picture, gives numbers 16 digits and every cell
of a heat map a path of its own; here ids bear the figure's name, numbers have two decimals, and cells of one colour are
one path: 19,200 of them take some 130 kB instead of 1.6 MB.
"""

import re
from typing import Any

from halfbyte.text import line

CONFIG: dict[str, Any] = {
    "aria": False,  # what is seen is said once, for the whole picture
    "background": None,
    "font": "Arial, Helvetica, Liberation Sans, sans-serif",
    "padding": {"left": 24, "right": 24, "top": 5, "bottom": 5},  # for fonts wider than the one measured with
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "titleFontWeight": "normal",
        "gridColor": "currentColor",
        "gridOpacity": 0.12,
        "domainColor": "currentColor",
        "domainOpacity": 0.4,
        "tickColor": "currentColor",
        "tickOpacity": 0.4,
    },
    "legend": {"labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": "normal"},
    "header": {"labelColor": "currentColor", "titleColor": "currentColor"},
}

STYLE = "svg{color:#1c2128}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}"
"""Of an SVG that stands alone."""

_TAG = re.compile(r"<[^<>]*>")
_LONG = re.compile(r"\d+\.\d{3,}(?:e-?\d+)?")
_OPENING = re.compile(r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>")
_CELL = r'<path d="M(-?[\d.]+),(-?[\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+Z" fill="([^"]+)"/>'
_ONE_CELL = re.compile(_CELL)
_CELLS = re.compile(f"(?:{re.sub(r'[(](?![?])', '(?:', _CELL)}){{24,}}")


def specification(chart: Any) -> dict[str, Any]:
    """Vega-Lite of a chart with the looks that all have. The same rows give the same document."""
    document: dict[str, Any] = chart.to_dict()
    document["config"] = CONFIG
    return document


def svg(chart: Any, name: str, says: str) -> str:
    """An `<svg>` element for a page. name: for its ids. says: what is seen, in one sentence."""
    from html import escape

    import vl_convert

    drawn = vl_convert.vegalite_to_svg(specification(chart))
    drawn = _TAG.sub(lambda tag: _LONG.sub(_rounded, tag.group()), drawn)
    drawn = _CELLS.sub(lambda cells: _merged(cells.group()), drawn)
    drawn = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', drawn)
    drawn = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", drawn)
    label = escape(line(says))
    return _OPENING.sub(
        lambda tag: f'<svg viewBox="{tag.group(1)}" {_size(tag.group(1))} role="img" aria-label="{label}">',
        drawn,
        count=1,
    )


def alone(drawn: str) -> str:
    """The same element as a file of its own."""
    opening = drawn.index(">") + 1
    head = drawn[:opening].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{head}<style>{STYLE}</style>{drawn[opening:]}\n"


def _size(view_box: str) -> str:
    _, _, width, height = view_box.split()
    return f'width="{width}" height="{height}"'


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")


def _merged(cells: str) -> str:
    """Cells as one path for each colour and height; neighbours in a row are one stroke, as thick as the row is high."""
    runs: list[list[float]] = []
    looks: list[tuple[str, float]] = []
    for one in _ONE_CELL.finditer(cells):
        x, y, wide, high = (float(one.group(i)) for i in range(1, 5))
        look = one.group(5), high
        last = runs[-1] if runs else None
        if last is not None and looks[-1] == look and last[1] == y and abs(last[0] + last[2] - x) < 0.02:
            last[2] += wide
        else:
            runs.append([x, y, wide])
            looks.append(look)
    strokes: dict[tuple[str, float], list[str]] = {}
    ends: dict[tuple[str, float], tuple[float, float]] = {}
    for (x, y, wide), look in zip(runs, looks, strict=True):
        middle = y + look[1] / 2
        if look in ends:
            was_x, was_y = ends[look]
            strokes[look].append(f"m{_short(x - was_x)},{_short(middle - was_y)}h{_short(wide)}")
        else:
            strokes[look] = [f"M{_short(x)},{_short(middle)}h{_short(wide)}"]
        ends[look] = x + wide, middle
    return "".join(
        f'<path d="{"".join(pieces)}" stroke="{colour}" stroke-width="{_short(high)}" shape-rendering="crispEdges"/>'
        for (colour, high), pieces in strokes.items()
    )


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
