"""A page from its parts: one HTML file without a script, a font or an address; interactive, with Vega in it, once.

Every value is escaped by the template, and shown as `text.line` shows it: no name of a tensor, shard, recipe or slice
can become markup, turn the writing round or hide. A content security policy in the page forbids it to fetch.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfbyte.checkpoint.writer import write_whole
from halfbyte.errors import UsageError, said
from halfbyte.plots.drawing import alone, specification, svg
from halfbyte.plots.parts import Figure, Page, Section
from halfbyte.text import line

if TYPE_CHECKING:
    from jinja2 import Template

START = """
for (const one of document.querySelectorAll("script[data-figure]")) {
  const place = document.getElementById(one.dataset.figure);
  const drawn = place.firstElementChild;
  const live = document.createElement("div");
  vegaEmbed(live, JSON.parse(one.textContent), {actions: false, renderer: "svg"}).then(
    () => drawn.replaceWith(live), error => console.warn(error));
}
"""
KINDS = (".svg", ".html")


def html(page: Page, *, interactive: bool = False) -> str:
    """The page whole. Raises UnsupportedError where what draws is missing."""
    from markupsafe import Markup

    figures = [figure for section in page.sections for figure in section.figures]
    drawn = {one.name: Markup(svg(one.chart, one.name, one.says)) for one in figures}
    scripts = Markup(_scripts(figures)) if interactive and figures else ""
    # Vega compiles its expressions, hence 'unsafe-eval'; all other sources stay forbidden
    allowed = "; script-src 'unsafe-inline' 'unsafe-eval'" if scripts else ""
    return _template().render(page=page, drawn=drawn, scripts=scripts, allowed=Markup(allowed))


def check_plot(path: str | Path) -> Path:
    """Raises UsageError for a file of no kind that `write_plot` knows. Looked at before the work is done."""
    from halfbyte.plots.charts import library

    path = Path(path)
    if path.suffix not in KINDS:
        raise UsageError(
            said("{plot} {name}: wanted a name that ends in {kinds}", name=path.name, kinds=" or ".join(KINDS))
        )
    library()
    return path


def write_plot(path: str | Path, title: str, figures: list[Figure]) -> None:
    """One picture, the first that there is, as SVG; or all with their tables as a page. Raises OutputError."""
    path = check_plot(path)
    if path.suffix == ".svg":
        first = figures[0]
        content = alone(svg(first.chart, first.name, first.says))
    else:
        content = html(Page(title, sections=(Section("Figures", figures=figures),)))
    write_whole(path, content.encode())


def _scripts(figures: list[Figure]) -> str:
    import vl_convert

    specs = "".join(
        f'<script type="application/json" data-figure="{one.name}">{_inert(specification(one.chart))}</script>\n'
        for one in figures
    )
    vega = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    bundle = vega.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f"{specs}<script>{bundle}</script>\n<script>{START}</script>"


def _inert(document: Any) -> str:
    """JSON in which nothing ends a script or starts markup."""
    return json.dumps(document).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = os.path.dirname(__file__)
    words = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else line(value),
    )
    return words.get_template("page.html.j2")
