"""`halfbyte plan` through the real parser: the JSON document, exit codes, errors, the terminal view."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from families.configs import config
from typer.testing import CliRunner, Result

from halfbyte.cli import plan as command
from halfbyte.errors import UsageError
from halfbyte.evidence.plan import PlanDocument
from halfbyte.plan.planner import plan

TINY = Path(__file__).parents[2] / "examples" / "tiny-glm"
APP = typer.Typer()
APP.command("plan", cls=command.PlanCommand)(command.plan)
APP.command("other")(lambda: None)
KEYS = {
    "fits", "checkpoint_bytes", "per_gpu", "terms", "kv_tokens", "kv_bytes_per_token", "max_concurrency", "max_context",
    "engine_flags", "throughput", "cost",
}  # fmt: skip


MOST_MODULES = 380
"""Modules of a whole plan, the interpreter's own among them: 342 when each format and family had got its file."""


@pytest.fixture
def glm(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config("GLM-5.2")))
    return str(tmp_path / "config.json")


def run(*words: str) -> Result:
    return CliRunner().invoke(APP, ["plan", *words])


def test_the_document(glm: str, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    words = [
        "--recipe",
        "nvfp4-routed-experts",
        "--gpu",
        "b200",
        "--gpus",
        "8",
        "--context",
        "128k",
        "--price",
        "4",
        "--api-price",
        "3",
        "--json",
    ]
    result = run(glm, *words, "-o", str(out))
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert set(document) >= KEYS
    assert document["fits"] is True
    assert document["checkpoint_bytes"] == 464_795_267_072
    assert document["kv_bytes_per_token"] == 47_700
    assert set(document["per_gpu"]) == {"usable_gib", "weights_gib", "kv_gib", "peak_gib", "headroom_gib"}
    assert all(set(term) == {"name", "phase", "gib", "formula", "source"} for term in document["terms"])
    assert document["max_concurrency"] == document["kv_tokens"] // 131072
    assert document["throughput"]["model"].endswith("not a measurement")
    assert document["cost"]["usd_per_million"]["output"] > document["cost"]["usd_per_million"]["input"]
    assert json.loads(out.read_text()) == document == PlanDocument.read(out).as_json()
    out.write_text('{"plan_version": 99}')
    with pytest.raises(UsageError, match="plan_version 99"):
        PlanDocument.read(out)


def test_unfit_is_exit_1_with_the_smallest_change(glm: str) -> None:
    result = run(glm, *["--recipe", "bf16", "--gpu", "h100", "--gpus", "8", "--json"])
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["fits"] is False
    assert document["problems"]
    assert document["smallest_change"] in ("recipe nvfp4-routed-experts", "recipe fp8-block")
    assert document["throughput"] == {} == document["cost"]


def test_no_chunk_fits_where_nothing_does(glm: str) -> None:
    result = run(glm, "--recipe", "nvfp4-routed-experts", "--gpu", "h100", "--gpus", "4", "--terms")
    assert result.exit_code == 1
    assert "none fits" in result.output


def test_mtp_with_and_without_a_number(glm: str) -> None:
    words = ["--recipe", "nvfp4-routed-experts", "--gpu", "b200", "--json"]
    for given, drafts in ((["--mtp"], 3), (["--mtp", "5"], 5), (["--mtp=1"], 1), ([], 0)):
        document = json.loads(run(glm, *given, *words).stdout)
        assert document["deployment"]["mtp_tokens"] == drafts


def test_gpu_memory_overrides_the_catalogue(glm: str) -> None:
    words = ["--recipe", "nvfp4-routed-experts", "--gpu", "b200", "--gpu-memory-gib", "100", "--json"]
    assert json.loads(run(glm, *words).stdout)["per_gpu"]["usable_gib"] == 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gpu b2000x", "unknown GPU"),
        ("--gpu b200 --gpus 6", "attention heads do not divide"),
        ("--gpu b200 --price -1", "price"),
        ("--gpu b200 --context 2M", "the model has 1048576"),
        ("--gpu b200 --context many", "not a number of tokens"),
        ("--gpu b200 --recipe nvfp5", "no recipe"),
        ("--gpu b200 --mem-fraction 2", "memory fraction"),
        ("--gpu b200 --engine tgi", "unknown engine"),
        ("--gpu b200 --traffic none.csv", "no such trace"),
        ("", "no GPU is named"),
        ("--compare b200", "not GPUxCOUNT"),
        ("--compare b200x8 --traffic reasoning:10@1", "--traffic is for one machine"),
        ("--gpu b200 --price nan", "price is nan"),
        ("--gpu b200 --utilisation 2", "utilisation of 2"),
        ("--gpu b200 --reasoning-share 1", "reasoning share of 1"),
        ("--gpu b200 --slo-ttft-ms inf", "slo ttft ms is inf"),
        ("--gpu b200 --output-tokens 99999999999", "output tokens is"),
        ("--gpu b200 --gpu-memory-gib nan", "not possible"),
        ("--gpu b200 --mem-fraction nan", "memory fraction"),
        ("--gpu b200 --draft-gib 1", "without draft tokens"),
        ("--gpu b200 --chunk 0", "chunk is 0"),
    ],
)
def test_nonsense_is_one_error(glm: str, words: str, message: str) -> None:
    result = run(glm, *words.split(), "--json")
    document = json.loads(result.stdout)
    assert set(document) == {"error"}
    assert message in document["error"]["message"]
    assert result.exit_code in (1, 2)


def test_a_missing_target() -> None:
    result = run("nowhere/at/all", "--gpu", "b200", "--json")
    assert json.loads(result.stdout)["error"]["kind"] == "bad-checkpoint"


def test_measured_routing_is_faster_than_uniform(glm: str, tmp_path: Path) -> None:
    file, words = tmp_path / "routing.json", "--recipe nvfp4-routed-experts --gpu b200 --concurrency 4 --context 64k"
    file.write_text(json.dumps([1 / (expert + 1) for expert in range(256)]))
    routing = ["--routing", str(file)]
    skewed, even = (json.loads(run(glm, *words.split(), "--json", *more).stdout) for more in (routing, []))
    assert skewed["throughput"]["tpot_ms"] < even["throughput"]["tpot_ms"]
    file.write_text("[1, 2]")
    assert "wanted 256" in json.loads(run(glm, *words.split(), "--json", *routing).stdout)["error"]["message"]


def test_tenants_of_a_trace_pay_for_the_pool(glm: str) -> None:
    words = [
        "--recipe",
        "nvfp4-routed-experts",
        "--gpu",
        "b200",
        "--price",
        "4",
        "--traffic",
        "reasoning:500@0.2",
        "--json",
    ]
    document = json.loads(run(glm, *words).stdout)
    assert sum(document["cost"]["usd_per_hour_by_tenant"].values()) == pytest.approx(32, abs=0.01)
    assert document["traffic"]["replicas_for_slo"] >= 1


def test_the_terminal_view(glm: str) -> None:
    text = run(
        glm,
        *["--recipe", "nvfp4-routed-experts", "--gpu", "b200", "--price", "4", "--traffic", "reasoning:500@0.2"],
        "--terms",
    ).stdout
    for part in (
        "memory of one GPU",
        "graph capture",
        "largest term",
        "flags: --tp-size 8",
        "traffic: 500 of 500",
        "█",
    ):
        assert part in text


def test_the_answers_come_first_and_fit_a_terminal(glm: str) -> None:
    words = ["--recipe", "nvfp4-routed-experts", "--gpu", "b200", "--price", "4"]
    text = run(glm, *words).stdout
    lines = text.splitlines()
    assert lines[1].startswith("fits")
    assert " yes, peak " in lines[1]
    asked = [one.split("  ")[0] for one in lines[2:10]]
    assert [one for one in asked if one in ("sequences", "speed", "price")] == ["sequences", "speed", "price"]
    tables = [one for one in lines if not one.startswith(("flags:", "warning:", glm))]
    assert max(map(len, tables)) <= 80
    assert "formula" not in text.replace("--terms shows every term with its formula and source", "")
    too_large = run(glm, "--recipe", "bf16", "--gpu", "h100").stdout.splitlines()
    assert too_large[1].split()[:2] == ["fits", "NO:"]


def test_comparison(glm: str) -> None:
    words = ["--recipe", "nvfp4-routed-experts", "--compare", "b200x8,h200x8,h100x8,rtxpro6000x8,b300x4"]
    text = run(glm, *words).stdout
    for machine in ("8 x b200", "8 x h200", "8 x h100", "8 x rtxpro6000", "4 x b300"):
        assert machine in text
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert len(json.loads(run(glm, *words, "--json").stdout)) == 5
    none_fits = run(glm, *["--recipe", "bf16", "--compare", "h100x8,l40sx8", "--json"])
    assert none_fits.exit_code == 1
    assert [plan["fits"] for plan in json.loads(none_fits.stdout)] == [False, False]


def test_a_real_folder_and_its_config_agree() -> None:
    read, paper = plan(str(TINY), "l40s", 1), plan(str(TINY / "config.json"), "l40s", 1, recipe="bf16")
    assert read.fits
    assert read.memory.weights_bytes == pytest.approx(paper.memory.weights_bytes, rel=0.02)


def test_start_is_light_and_without_torch(glm: str) -> None:
    code = (
        "import sys, halfbyte.plan.planner as p\n"
        f"p.plan({glm!r}, 'b200', 8, recipe='nvfp4-routed-experts').as_json()\n"
        "print(len(sys.modules))\n"
        "print([m for m in ('torch', 'numpy', 'numba', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert int(modules) < MOST_MODULES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"model_type": "llama"}', "not a known family"),
        (b'{"model_type": "qwen3_moe"}', "num_hidden_layers"),
        (b'{"model_type": "llama4", "num_hidden_layers": 4000000000}', "wanted at most"),
    ],
)
def test_a_config_that_cannot_be(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    result = run(str(tmp_path / "config.json"), "--recipe", "bf16", "--gpu", "b200", "--json")
    assert message in json.loads(result.stdout)["error"]["message"]
    assert result.exit_code == 1


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_experts_per_tok", "num_hidden_layers", "kv_lora_rank", "index_topk"]
)
@pytest.mark.parametrize("value", [None, 0, -1, 1.5, "x", [], True, float("nan"), 10**30])
def test_a_config_with_one_senseless_value(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**config("GLM-5.2"), key: value}))
    result = run(str(tmp_path / "config.json"), "--recipe", "bf16", "--gpu", "b200", "--json")
    assert json.loads(result.stdout)["error"]["message"].startswith("config.json: ")
    assert result.exit_code == 1
