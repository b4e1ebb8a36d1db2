"""A term's source is something that a reader can open."""

import re
from pathlib import Path

from halfbyte.engines import sources
from halfbyte.plan.memory import plan_memory

from .models import paper, server

GLM = paper()

DOCUMENT = Path(__file__).parents[2] / "docs/engines.md"


def chapters() -> set[str]:
    return {f"docs/engines.md {number}" for number in re.findall(r"^## (\d+) ", DOCUMENT.read_text("utf-8"), re.M)}


def test_every_chapter_that_is_named_is_there() -> None:
    named = {value for name, value in vars(sources).items() if name.isupper()}
    assert len(named) > 3
    assert named <= chapters()


def test_no_term_cites_what_is_nowhere() -> None:
    for engine in ("vllm", "sglang"):
        for term in plan_memory(GLM.groups, GLM.arch, server(GLM, engine=engine)).terms:
            cited = set(re.findall(r"docs/\S+ \d+", term.source))
            assert cited <= chapters(), term
            assert "notes" not in term.source, term
