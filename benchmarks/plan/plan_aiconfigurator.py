"""The plan beside NVIDIA's aiconfigurator on the same configurations.

    python -m venv /tmp/aic && /tmp/aic/bin/pip install aiconfigurator
    python -m benchmarks.plan.plan_aiconfigurator --aiconfigurator /tmp/aic/bin/aiconfigurator

aiconfigurator prints one memory number: weights, activations, communicators and the cache of the asked batch. Ours is
put together alike: everything but the KV pool, in its peak phase, plus the cache of that batch. Neither is measured.
"""

import argparse
import re
import subprocess
from dataclasses import replace
from typing import NamedTuple

from benchmarks.plan.plan_accuracy import DATA, config_of
from halfbyte.models import architecture_of
from halfbyte.plan.deployment import make_deployment
from halfbyte.plan.hardware import find_gpu
from halfbyte.plan.memory import plan_memory
from halfbyte.plan.recipes import groups_on_paper, storage_by_recipe
from halfbyte.plan.terms import phase_bytes
from halfbyte.plan.throughput import SpeedModel
from halfbyte.plan.work import work_of


class Case(NamedTuple):
    """One configuration in both tools' words."""

    model: str
    recipe: str
    system: str
    gpu: str
    engine: str
    tp: int
    batch: int


INPUT_TOKENS, OUTPUT_TOKENS = 8192, 1024
CASES = [
    Case(model, recipe, system, gpu, engine, tp, batch)
    for model, recipe, tp in (
        ("nvidia/GLM-5.2-NVFP4", "nvfp4-routed-experts", 8),
        ("zai-org/GLM-5.2-FP8", "fp8-block", 8),
        ("deepseek-ai/DeepSeek-V3", "fp8-block", 8),
        ("Qwen/Qwen3-235B-A22B-FP8", "fp8-block", 4),
    )
    for system, gpu in (("b200_sxm", "b200"), ("h200_sxm", "h200"))
    for engine in ("sglang", "vllm")
    for batch in (1, 32)
]


class Estimate(NamedTuple):
    """memory in GB (10^9 or 2^30 as the tool prints it), times in ms; `error` says why there is none."""

    memory: float = 0.0
    ttft: float = 0.0
    tpot: float = 0.0
    error: str = ""


def theirs(program: str, case: Case) -> Estimate:
    """Run `aiconfigurator cli estimate` and read its summary."""
    command = [program, "cli", "estimate", "--model", case.model, "--system", case.system, "--backend", case.engine]
    command += ["--tp-size", str(case.tp), "--moe-tp-size", str(case.tp), "--batch-size", str(case.batch)]
    command += ["--isl", str(INPUT_TOKENS), "--osl", str(OUTPUT_TOKENS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    text = done.stdout + done.stderr
    memory, ttft, tpot = (re.search(rf"{name}:\s+([\d.]+)", text) for name in (r"Memory \(GPU\)", "TTFT", "TPOT"))
    if memory and ttft and tpot:
        return Estimate(float(memory[1]), float(ttft[1]), float(tpot[1]))
    errors = re.findall(r"Error: (.*)", text)
    return Estimate(error=errors[-1][:70] if errors else f"exit {done.returncode}")


def ours(case: Case) -> Estimate:
    """The plan's figures for the same batch."""
    import json

    configs = json.loads((DATA / "model-configs.json").read_text())
    arch = architecture_of(config_of(case.model, configs) or {})
    groups = groups_on_paper(arch, storage_by_recipe(case.recipe))
    d = make_deployment(arch, find_gpu(case.gpu), case.tp, case.engine, tp=case.tp, kv_dtype="fp8", context=16384)
    memory = plan_memory(groups, arch, replace(d, chunk=INPUT_TOKENS, max_sequences=case.batch))
    own = [term for term in memory.terms if not term.name.startswith("KV cache")]
    cache = case.batch * (INPUT_TOKENS + OUTPUT_TOKENS) * memory.kv.token_bytes
    peak = max(phase_bytes(own, phase) for phase in ("prefill", "decode")) + cache
    speed = SpeedModel(work_of(groups, arch, memory)).at(case.batch, INPUT_TOKENS, OUTPUT_TOKENS)
    return Estimate(peak / 2**30, speed.ttft_ms, speed.tpot_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--aiconfigurator", required=True, help="path of the program")
    program = parser.parse_args().aiconfigurator
    print(
        "| model | system | engine | tp | batch | memory GiB: plan | aic | TTFT ms: plan | aic | TPOT ms: plan | aic |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        mine, other = ours(case), theirs(program, case)
        shown = (
            (f"{other.memory:.1f}", f"{other.ttft:.0f}", f"{other.tpot:.1f}")
            if not other.error
            else (other.error, "-", "-")
        )
        print(
            f"| {case.model.split('/')[-1]} | {case.system} | {case.engine} | {case.tp} | {case.batch} | "
            f"{mine.memory:.1f} | {shown[0]} | {mine.ttft:.0f} | {shown[1]} | {mine.tpot:.1f} | {shown[2]} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
