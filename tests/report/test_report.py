"""`halfbyte report`: the whole contract, on dossiers as commands write them and as an enemy would."""

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from browser import program
from evidence.documents import DECISION, dossier
from small import small_checkpoint

from halfbyte.api import plan as run_plan
from halfbyte.errors import CheckpointError, OutputError
from halfbyte.report.written import report

pytest.importorskip("altair")

HOSTILE = "</script><script>alert(1)</script><img src=//x onerror=y>\u202e\x1b[2J'\""


class Parsed(HTMLParser):
    """Elements with their attributes, and the text that is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def folder_of(tmp_path: Path, **documents: Any) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir(parents=True)
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document), "utf-8")
    return folder


def page_of(folder: Path, **options: Any) -> str:
    output = folder.parent / "page.html"
    report(folder, output=output, **options)
    return output.read_text("utf-8")


@cache
def planned() -> str:
    with TemporaryDirectory() as folder:
        return json.dumps(run_plan(str(small_checkpoint(Path(folder, "source"))), "b200", 1).as_json())


def plan() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(planned())
    return document


def decision() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(DECISION))
    return document


def full() -> dict[str, Any]:
    """With errors of four experts on two layers."""
    document = dossier()
    row = next(iter(document["tensors"].values()))
    document["tensors"] = {
        f"model.layers.{layer}.mlp.experts.{expert}.up_proj": row
        | {"relative_error": 0.09 + layer / 100 + expert / 1000}
        for layer in (1, 2)
        for expert in range(4)
    }
    return document


def test_figures_are_exact(tmp_path: Path) -> None:
    document = full()
    document["compare"][0]["result"]["kl"] = {"mean": 0.08754, "low": 0.0478, "high": 0.1271}
    text = Parsed(page_of(folder_of(tmp_path, halfbyte=document, gate=decision(), plan=plan()))).text
    for row in document["roles"]:
        assert str(row["bytes_before"]) in text
        assert str(row["bytes_after"]) in text
    for row in (*document["source"]["files"], *document["shards"]):
        assert row["sha256"][:12] in text
    assert "0.088 [0.048, 0.127]" in text
    assert "0.1130" in text  # layer 2, expert 3
    for word in (decision()["decision"], decision()["findings"][0]["rule"], plan()["peak_phase"]):
        assert word in text


def test_without_evidence_a_section_names_the_command(tmp_path: Path) -> None:
    document = full() | {"compare": [], "evaluate": [], "tensors": {}, "rounded_on_data": None}
    text = Parsed(page_of(folder_of(tmp_path, halfbyte=document))).text
    for command in ("quantize", "compare", "compare BASE CANDIDATE --recall", "evaluate", "gate", "plan"):
        assert f"halfbyte {command}" in text


def test_nothing_is_fetched_or_run(tmp_path: Path) -> None:
    page = page_of(folder_of(tmp_path, halfbyte=full(), gate=decision(), plan=plan()))
    found = Parsed(page)
    assert found.tags("script") == []
    assert len(found.tags("svg")) >= 5
    assert re.search(r"https?:|//[a-z]|@import|url\((?!#)", page) is None
    names = {name for _, attributes in found.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")} | (names & {"src", "href", "srcset", "xlink:href"})
    assert "@media print" in page
    assert "prefers-color-scheme:dark" in page
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_behind_each_picture_stands_a_table(tmp_path: Path) -> None:
    page = page_of(folder_of(tmp_path, halfbyte=full(), gate=decision(), plan=plan()))
    pieces = page.split("<figure ")[1:]
    assert len(pieces) >= 5
    assert all("<table>" in piece for piece in pieces)
    assert all(svg["aria-label"] for svg in Parsed(page).tags("svg"))


def test_the_folder_is_not_in_the_page(tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", halfbyte=full(), gate=decision(), plan=plan())
    other = tmp_path / "elsewhere" / "of another name"
    shutil.copytree(one, other)
    assert page_of(one) == page_of(other)
    assert page_of(one, interactive=True) == page_of(other, interactive=True)
    assert str(tmp_path) not in page_of(one)


@pytest.mark.parametrize("interactive", [False, True])
def test_strings_of_a_checkpoint_are_words(tmp_path: Path, interactive: bool) -> None:
    document = full()
    document["source"]["name"] = document["recipe"]["name"] = document["model_type"] = HOSTILE
    document["shards"][0]["file"] = document["warnings"] = HOSTILE
    document["warnings"] = [HOSTILE]
    document["roles"][0]["role"] = document["roles"][0]["format"] = HOSTILE
    result = document["compare"][0]["result"]
    result["slices"] = {HOSTILE: {HOSTILE: next(iter(next(iter(result["slices"].values())).values()))}}
    result["recall"][0]["language"] = HOSTILE
    document["evaluate"][0]["suite"] = document["evaluate"][0]["verdict"] = HOSTILE
    judged, sum_of = decision(), plan()
    judged["findings"][0]["message"] = judged["policy"]["name"] = HOSTILE
    sum_of["terms"][0]["name"] = sum_of["deployment"]["gpu"] = HOSTILE
    page = page_of(folder_of(tmp_path, halfbyte=document, gate=judged, plan=sum_of), interactive=interactive)
    found = Parsed(page)
    assert found.tags("img") == []
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "alert(1)" in found.text
    scripts = found.tags("script")
    figures = len(found.tags("figure"))
    assert len(scripts) == (figures + 2 if interactive else 0)


def test_interactive_holds_vega_once(tmp_path: Path) -> None:
    page = page_of(folder_of(tmp_path, halfbyte=full()), interactive=True)
    found = Parsed(page)
    assert all("src" not in attributes for attributes in found.tags("script"))
    figures = {one["id"] for one in found.tags("figure")}
    assert {one["data-figure"] for one in found.tags("script") if "data-figure" in one} == figures
    assert page.count("window.vegaEmbed") == 1
    [policy] = [one["content"] for one in found.tags("meta") if "http-equiv" in one]
    assert (policy or "").startswith("default-src 'none'")


def test_a_large_model_stays_small(tmp_path: Path) -> None:
    """GLM-5.2: 75 layers of 256 experts, 282 source shards, 93 of ours."""
    document = full()
    row = next(iter(document["tensors"].values()))
    document["tensors"] = {
        f"model.layers.{layer}.mlp.experts.{expert}.{name}": row
        | {"relative_error": 0.09 + (layer * 37 + expert * 101) % 97 / 9700}
        for layer in range(3, 78)
        for expert in range(256)
        for name in ("gate_proj", "up_proj", "down_proj")
    }
    shard = document["shards"][0]
    document["source"]["files"] = [shard | {"file": f"model-{i:05}-of-00282.safetensors"} for i in range(282)]
    document["shards"] = [shard | {"file": f"model-{i:05}-of-00093.safetensors"} for i in range(93)]
    page = page_of(folder_of(tmp_path, halfbyte=document, gate=decision(), plan=plan()))
    assert len(page.encode()) < 400_000
    assert "model-00281-of-00282.safetensors" in page


@pytest.mark.parametrize("number", [10**400, 2**1000, -1, 0], ids=["too large", "large", "negative", "none"])
def test_numbers_that_no_checkpoint_has_are_shown(tmp_path: Path, number: int) -> None:
    document = full()
    row = document["roles"][0]
    row["bytes_before"] = row["parameters"] = document["shards"][0]["bytes"] = number
    document["compare"][0]["result"]["layers"][0]["layer"] = number
    document["compare"][0]["result"]["kl"]["mean"] = float("inf")
    assert str(number) in Parsed(page_of(folder_of(tmp_path, halfbyte=document))).text


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("halfbyte.json", "{", "cannot be read as evidence"),
        ("halfbyte.json", "[]", "not a JSON object"),
        ("halfbyte.json", '{"schema": 2}', "schema 2, wanted 1"),
        ("gate.json", "{}", "gate_version None, wanted 1"),
        ("plan.json", "\xff", "cannot be read"),
    ],
)
def test_a_bad_dossier_leaves_no_file(tmp_path: Path, name: str, content: str, says: str) -> None:
    folder = folder_of(tmp_path, halfbyte=full())
    (folder / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=re.escape(says)):
        report(folder, output=tmp_path / "page.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_no_evidence_is_replaced(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, halfbyte=full())
    before = (folder / "halfbyte.json").read_bytes()
    with pytest.raises(OutputError):
        report(folder, output=folder / "halfbyte.json")
    assert (folder / "halfbyte.json").read_bytes() == before


def test_command(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, halfbyte=full())
    command = [sys.executable, "-m", "halfbyte", "report"]
    done = subprocess.run(
        [*command, str(folder), "-o", "a.html", "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["output"] == "a.html"
    assert said["bytes"] == (tmp_path / "a.html").stat().st_size
    assert said["missing"] == ["Gate", "Plan by phase"]
    (folder / "halfbyte.json").unlink()
    done = subprocess.run([*command, str(folder)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "halfbyte.json: missing" in done.stderr
    assert not (tmp_path / "report.html").exists()


def seen(page: Path, folder: Path) -> tuple[str, list[str], list[str]]:
    """The page as a headless browser without a network has it in the end, addresses that it asked for, its complaints.

    The browser asks for things of its own too; those have no origin in the log.
    """
    log = folder / "net.json"
    command = [str(program()), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}", "--enable-logging=stderr"]
    command += ["--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr[-2000:]
    written = log.read_text().rstrip()
    events = json.loads(written if written.endswith("}") else written.rstrip(",") + "]}")["events"]
    starts = [event["params"] for event in events if {"url", "initiator"} <= event.get("params", {}).keys()]
    asked = [one["url"] for one in starts if one["initiator"] != "not an origin" and one["url"].startswith("http")]
    return done.stdout, asked, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


needs_browser = pytest.mark.skipif(program() is None, reason="no Chromium here")


@needs_browser
@pytest.mark.parametrize("interactive", [False, True])
def test_a_browser_asks_for_nothing_and_complains_of_nothing(tmp_path: Path, interactive: bool) -> None:
    folder = folder_of(tmp_path, halfbyte=full(), gate=decision(), plan=plan())
    report(folder, output=tmp_path / "page.html", interactive=interactive)
    dom, asked, complaints = seen(tmp_path / "page.html", tmp_path)
    assert (asked, complaints) == ([], [])
    shown = Parsed(dom)
    assert len(shown.tags("svg")) >= 5
    assert bool([one for one in shown.tags("div") if "vega-embed" in (one.get("class") or "")]) == interactive


@needs_browser
def test_the_browser_test_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><img src="http://127.0.0.1:9/x.png"><script>console.error("no")</script>')
    _, asked, complaints = seen(page, tmp_path)
    assert asked == ["http://127.0.0.1:9/x.png"]
    assert complaints
