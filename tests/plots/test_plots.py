"""Pictures: well-formed, the same every time, small, and harmless whatever the words in them."""

import inspect
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from evidence.documents import measured
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_checkpoint

from halfbyte.errors import OutputError, UnsupportedError, UsageError
from halfbyte.plots.charts import error_by_expert, intervals
from halfbyte.plots.drawing import alone, svg
from halfbyte.plots.page import check_plot, write_plot
from halfbyte.report.drawn import DRAWN

pytest.importorskip("altair")

RECIPE = {"name": "usual", "bytes": 18_000_000, "groups": 3, "predicted_kl": 0.09, "kl": 0.0875}
SUITE = {
    "name": "code",
    "verdict": "PASS",
    "n": 60,
    "baseline": 75.0,
    "candidate": 73.3,
    "difference": -1.7,
    "interval": [-4.0, 0.6],
    "margin": 5.0,
}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "compare": measured(),
    "search": {"front": [RECIPE | {"groups": []}, RECIPE | {"bytes": 2e7}], "chosen": RECIPE, "usual": [RECIPE]},
    "evaluate": {"verdict": "PASS", "suites": [SUITE]},
}


@pytest.mark.parametrize("command", DOCUMENTS)
def test_a_command_draws(tmp_path: Path, command: str) -> None:
    for name in ("one.svg", "other.svg", "one.html"):
        write_plot(tmp_path / name, command, DRAWN[command](DOCUMENTS[command]))
    assert ET.fromstring((tmp_path / "one.svg").read_text("utf-8")).tag == "{http://www.w3.org/2000/svg}svg"
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
    assert "<table>" in (tmp_path / "one.html").read_text("utf-8")


def test_a_candidate_alone_is_drawn_without_a_verdict() -> None:
    alone_ = {"verdict": None, "suites": [{"name": "code", "n": 3, "candidate": 66.7}]}
    [figure] = DRAWN["evaluate"](alone_)
    assert "66.7" in figure.tables[0].rows[0][2]
    with pytest.raises(UnsupportedError):
        DRAWN["evaluate"]({"verdict": None, "suites": [{"name": "code", "n": 0, "candidate": None}]})


@pytest.mark.parametrize("command", DRAWN)
def test_every_command_that_draws_has_the_option(command: str) -> None:
    assert "plot" in inspect.signature(getattr(import_module(f"halfbyte.cli.{command}"), command)).parameters


def test_plan_by_its_command(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "source")
    words = [sys.executable, "-m", "halfbyte", "plan", str(source), "--gpu", "b200", "--gpus", "1", "--json"]
    plain = subprocess.run(words, capture_output=True, text=True)
    drawn = subprocess.run([*words, "--plot", str(tmp_path / "plan.html")], capture_output=True, text=True)
    assert drawn.returncode == plain.returncode == 0, drawn.stderr
    assert json.loads(drawn.stdout) == json.loads(plain.stdout)
    assert "terms of one GPU" in (tmp_path / "plan.html").read_text("utf-8")
    wrong = subprocess.run([*words, "--plot", str(tmp_path / "plan.png")], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "--plot plan.png: wanted a name that ends in .svg or .html" in wrong.stderr


def test_what_cannot_be_drawn_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        check_plot(tmp_path / "plot.pdf")
    with pytest.raises(OutputError):
        write_plot(tmp_path / "nowhere" / "plot.svg", "x", DRAWN["evaluate"](DOCUMENTS["evaluate"]))


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=12, deadline=None)
def test_any_words_can_be_drawn(words: str) -> None:
    drawn = svg(intervals([{"name": words, "mean": 1.0, "low": 0.5, "high": 2.0}], "x"), "name", words)
    root = ET.fromstring(alone(drawn))
    known = {"svg", "style", "g", "path", "line", "text", "defs", "clipPath", "rect"}
    assert {one.tag.rpartition("}")[2] for one in root.iter()} <= known


def test_no_cell_is_lost_where_cells_are_merged() -> None:
    """Each stroke's length is the sum of its cells': together they cover the whole map, layer by layer."""
    rows = [{"layer": layer, "expert": e, "error": (7 * e + layer) % 5 / 10} for layer in range(6) for e in range(64)]
    drawn = svg(error_by_expert(rows, "error"), "map", "a map")
    strokes = re.findall(r'<path d="(M[^"]*)" stroke="#[0-9a-f]{6}" stroke-width="22"', drawn)
    lengths = [float(one) for path in strokes for one in re.findall(r"h([\d.]+)", path)]
    assert len(strokes) == 5  # colours
    assert sum(lengths) == 6 * 64 * 8
