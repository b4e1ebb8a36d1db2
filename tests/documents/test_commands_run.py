"""The command lines that README and docs show are run, on a small model under the names that they use.

What cannot run here (another machine, a GPU, an engine that runs, the full size) is listed with its reason: a new line
is either run or explained.
"""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from export.checkpoints import family_checkpoint
from families.configs import config
from small import runnable_changes
from typer.testing import CliRunner

from halfbyte.api import quantize
from halfbyte.cli.main import app

from .test_command_lines import PAGES, lines

NOT_HERE = {
    r"(quantize|gate|plan|inspect) (nvidia|zai-org)/": "the hub",
    r"quantize (https|s3)://": "a server; run by tests/quantize/test_remote_sources.py and test_to_store.py",
    r"quantize ~": "a hub's cache; run by tests/quantize/test_remote_sources.py",
    r".*--ray HOST": "a cluster; run by tests/quantize/test_on_ray.py",
    r".*--device cuda": "a GPU",
    r".*(\[--|\[-o|TARGET|\|FILE|RULE\|all)": "shows what may be said, and is no command",
    r"(chat|serve|tenants|usage|probe|evaluate) ?": "an engine or a door that runs; run by tests/chat, serve, evaluate",
    r"(deploy|bundle|unbundle) ?": "a platform; run by tests/deploy",
    r"search .*(--gb 420|--fit b200x8)": "a budget of the full size; run by tests/search",
    r"quantize .*--part .*": "several shells; run by tests/quantize/test_parts.py",
    r"quantize .*--finish": "several shells; run by tests/quantize/test_parts.py",
    r"quantize examples/tiny-glm": "the demo",
    r"(verify|gate|report) .*demo-output": "the demo",
    r"convert \./modelopt": "what the line before it wrote",
}
"""Beginning of a line -> why it is not run."""

PLACES = {
    "SRC": "GLM-5.2",
    "DST": "out",
    "./theirs": "compressed",
    "./from-llm-compressor": "compressed",
    "our-domain.jsonl": "ours.jsonl",
    "mine.yaml": "recipe.yaml",
    "1k,16k": "1k",
    "--bits 5": "--bits 14",
    "plan ./glm-nvfp4": "plan config.json --recipe nvfp4-routed-experts",
}
"""What a page says -> what lies here."""

CARD = """suites: [{name: GPQA diamond, n: 198, baseline: 89.52, candidate: 89.39, repeats: 8}]\n"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GLM-5.2, its NVFP4 in both layouts, some text, and the full size's config.json."""
    folder = tmp_path_factory.mktemp("stage")
    family_checkpoint(folder / "GLM-5.2", "GLM-5.2", **runnable_changes("GLM-5.2"))
    rows = [
        {"text": f"{n}: the thing in the {n} other " * 12, "domain": "ab"[n % 2], "language": "en"} for n in range(12)
    ]
    (folder / "ours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(json.dumps(config("GLM-5.2")))
    quantize(folder / "GLM-5.2", folder / "glm-nvfp4")
    done = CliRunner().invoke(
        app, ["convert", str(folder / "glm-nvfp4"), str(folder / "compressed"), "--layout", "compressed-tensors"]
    )
    assert done.exit_code == 0, done.output
    return folder


def why_not(line: str) -> str | None:
    plain = re.sub(" +", " ", line)
    return next((reason for begins, reason in NOT_HERE.items() if re.match(begins, plain)), None)


def words_of(line: str) -> list[str]:
    plain = re.sub(" +", " ", line.partition("  #")[0].partition(" # ")[0].strip())
    for said, here in PLACES.items():
        plain = re.sub(rf"(?<![\w/]){re.escape(said)}(?![\w/])", here, plain)
    return shlex.split(plain)


RUN = {page.name: [line for line in map(str.strip, lines(page)) if why_not(line) is None] for page in PAGES}


def test_most_of_the_commands_are_run() -> None:
    assert len({line.split()[0] for found in RUN.values() for line in found}) >= 12
    assert len(RUN["README.md"]) >= 11


@pytest.mark.parametrize(
    "page", [name if name == "README.md" else pytest.param(name, marks=pytest.mark.slow) for name in RUN if RUN[name]]
)
def test_a_page_s_commands_run_one_after_the_other(
    page: str, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    shutil.copytree(stage, place)
    (place / "card.yaml").write_text(CARD)
    (place / "scales.json").write_text(json.dumps({str(layer): 1.0 for layer in range(8)}))
    (place / "recipe.yaml").write_text("version: 1\nname: mine\nroles: {routed_expert: nvfp4}\n")
    (place / "trace.csv").write_text(
        "arrival,input,output\n" + "".join(f"{n / 10},{200 + n},{20 + n}\n" for n in range(50))
    )
    monkeypatch.chdir(place)
    for line in RUN[page]:
        words = words_of(line)
        if words[0] == "quantize" and "--improve" not in words:
            shutil.rmtree(words[2], ignore_errors=True)
        for written in [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-o", "--output")]:
            if os.path.isfile(written):
                os.unlink(written)
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"halfbyte {line}\n{done.output[-1500:]}"
