"""Predict every usable posted server log and print predicted, observed and error by kind.

    python -m benchmarks.plan.plan_accuracy [--observations FILE.jsonl] [--configs FILE.json] [--json]

Rows and configs: `benchmarks/data/` (public threads and logs; sources in each row). Nothing is fitted per row. Exit
status 1 if a bar is missed. The bars: checkpoint bytes <= 0.5 %; weights per GPU median <= 2 %, 90th percentile
<= 6 %; KV tokens median <= 8 % given the stated free memory; >= 90 % of posted out-of-memory refusals predicted as
unfit, no working server called unfit.
"""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from halfbyte.engines.server import GIB
from halfbyte.errors import HalfbyteError
from halfbyte.models import architecture_of
from halfbyte.models.architecture import Architecture
from halfbyte.plan.deployment import Deployment, make_deployment
from halfbyte.plan.hardware import find_gpu
from halfbyte.plan.kv import tokens_in
from halfbyte.plan.memory import MemoryPlan, plan_memory
from halfbyte.plan.recipes import groups_on_paper, storage_by_recipe
from halfbyte.plan.weight_groups import WeightGroup

DATA = Path(__file__).parents[1] / "data"

SAME_SHAPE = {
    "glm-5.3": "zai-org/GLM-5.2",
    "qwen3-coder-30b-a3b": "Qwen/Qwen3-30B-A3B",
    "deepseek-r1/v3": "deepseek-ai/DeepSeek-V3",
}
"""Models that share the shape of one whose config was read."""

UNEXPLAINED = {
    "glm52awq-gh200x8-vllm-pp2": "last stage 2 GiB above its share; its page suspects a resident MTP layer",
    "glm52awq-gh200x4-vllm-offload28": "a revision that was replaced; what it left in BF16 is not known",
    "glm53fp8-h200x8-vllm": "6 GiB a rank more than the same shape elsewhere; launch options not in the excerpt",
    "kimik26-rtx6000-vllm-v1-dcp8-mtp3": "the forecast of graphs took about 7 GiB; 1.8 to 3.3 in sister rows",
    "kimik25-rtx6000-vllm-095-nccl-oom": "buffers of a custom NCCL graph file, not in the flags",
    "glm52reap469b-rtx6000x4-vllm-dcp4": "a fork that keeps index keys on every layer: 61.5 kB a token = 78 x 788",
}
"""Rows that are counted and missed, or missed in part, with the reason as far as it is known. The bars are printed over
all rows and over the rest."""

NOT_USABLE = {
    "glm5fp8-mi355x-sgl-transformers-oom": "the engine fell back to another model class with whole BF16 experts",
    "qwen3-30b-ktransformers-h100": "most experts live in host memory",
    "kimik25fp4-b200-vllm-graph-estimate": "GPU count not stated; the refusal is a fault in the engine's forecast",
    "dsv3-dp-sgl-parserexample": "launch options and GPU unknown: usable for bytes per token only",
}
"""Rows that say nothing about a plan; the reason is printed. Rows whose model has no config are listed by the run."""


def config_of(model: str, configs: dict[str, Any]) -> dict[str, Any] | None:
    """The config whose name (after the owner) stands in the row's model name; the longest wins."""
    lowered = model.lower()
    for text, name in SAME_SHAPE.items():
        if text in lowered and name in configs:
            return dict(configs[name])
    found = [name for name in configs if _stem(name) in lowered.replace("-instruct", "")]
    return dict(configs[max(found, key=lambda name: len(_stem(name)))]) if found else None


def _stem(name: str) -> str:
    return name.split("/")[-1].lower().replace("-instruct", "")


def recipe_of(row: dict[str, Any]) -> str:
    """The paper recipe of a row, by its `quantization` words."""
    if "recipe" in row:
        return str(row["recipe"])
    words = f"{row.get('quantization') or ''} {row['model']}".lower()
    if "fp4" in words and "mxfp4" not in words:
        return "nvfp4-experts-and-mtp" if "nvfp4-mtp" in words else "nvfp4-routed-experts"
    for text, name in (("mxfp4", "mxfp4-experts"), ("int4", "int4-experts"), ("w4a", "int4-experts"), ("bf16", "bf16")):
        if text in words:
            return name
    published_in_fp8 = ("fp8", "deepseek", "minimax", "kimi-k2-instruct")
    return "fp8-block" if any(text in words for text in published_in_fp8) else "bf16"


def deployment_of(row: dict[str, Any], arch: Architecture) -> Deployment:
    """A row's launch options as a deployment. Raises HalfbyteError for a GPU or parallelism that cannot be."""
    command = row.get("command") or ""
    total = re.search(r"--max-total-tokens (\d+)", command)
    gpu = find_gpu(re.sub(r"\(.*\)", "", row["gpu"]))
    spec = re.findall(r"\d+", str(row.get("speculative") or "").replace("eagle3", "").replace("0.6B", ""))
    external = "eagle3" in str(row.get("speculative"))
    mtp = int(spec[0]) if spec and (arch.mtp_layers or external) else 0
    tp, pp, dp = row.get("tp"), row.get("pp"), row.get("dp")
    gpus = row.get("num_gpus") or (tp or gpu.gpus_per_node) * (pp or 1)
    return make_deployment(
        arch,
        gpu,
        gpus,
        row["engine"],
        tp=tp,
        ep=row.get("ep"),
        dp=dp,
        pp=pp,
        dcp=row.get("dcp"),
        context=row.get("context_length") or 0,
        chunk=row.get("chunked_prefill_size") or row.get("max_num_batched_tokens"),
        kv_dtype=row.get("kv_cache_dtype") if row.get("kv_cache_dtype") != "auto" else None,
        fraction=row.get("mem_fraction_static") or row.get("gpu_memory_utilization"),
        mtp_tokens=mtp,
        max_sequences=row.get("max_num_seqs") or row.get("max_running_requests"),
        graph_batch=0 if "eager" in f"{row.get('notes')} {command}" else row.get("cuda_graph_max_bs"),
        max_total_tokens=int(total.group(1)) if total else None,
        engine_version=row.get("engine_version"),
        forecast_graphs=forecast_of(row),
        draft_gib=0.0 if external else None,  # its weights are not stated; its layer of KV and its graphs count
    )


def forecast_of(row: dict[str, Any]) -> bool | None:
    """Whether vLLM left room for CUDA graphs, where the row says; else its version decides."""
    words = f"{row.get('command')} {row.get('notes')}"
    if "ESTIMATE_CUDAGRAPHS=0" in words:
        return False
    return True if "CUDA-graph estimate on" in words or "ESTIMATE_CUDAGRAPHS=1" in words else None


class Case:
    """One row with its prediction. `skipped` says why there is none."""

    def __init__(self, row: dict[str, Any], configs: dict[str, Any]) -> None:
        self.row, self.id, self.observed = row, row["id"], row["observed"]
        self.skipped = NOT_USABLE.get(self.id)
        self.plan: MemoryPlan | None = None
        self.groups: list[WeightGroup] = []
        self.unknown_gpu = False
        self.pruned = False  # REAP checkpoints have fewer experts than the config of their base: only KV can be told
        config = config_of(row["model"], configs)
        if config is None:
            self.skipped = self.skipped or "no config.json of this model was read"
        if config is None or self.skipped:
            return
        config["max_position_embeddings"] = max(config["max_position_embeddings"], row.get("context_length") or 0)
        self.pruned = "reap" in row["model"].lower()
        try:
            self.arch = architecture_of(config)
            self.groups = groups_on_paper(self.arch, storage_by_recipe(recipe_of(row)))
        except HalfbyteError as error:
            self.skipped = error.message
            return
        if row.get("without_mtp"):
            self.groups = [group for group in self.groups if not group.mtp]
        if row["engine"] not in ("vllm", "sglang") or not row.get("gpu"):
            if row["engine"] not in ("vllm", "sglang", "other"):
                self.skipped = f"{row['engine']} is not an engine that the plan knows"
            return
        self.unknown_gpu = row["gpu"].startswith("not stated")
        if self.unknown_gpu:  # weights do not depend on the GPU; nothing else is compared
            row = {**row, "gpu": "h200", "num_gpus": row.get("num_gpus") or row.get("tp")}
        if self.unknown_gpu and not row["num_gpus"]:
            self.skipped = "GPU and parallelism not stated"
            return
        try:
            self.plan = plan_memory(self.groups, self.arch, deployment_of(row, self.arch))
            if self.observed.get("works") and not row.get("context_length") and not self.plan.fits:
                # a server that works has some context that fits; when it is not stated, ask for one short sequence
                self.plan = plan_memory(
                    self.groups, self.arch, deployment_of({**row, "context_length": 4096}, self.arch)
                )
        except HalfbyteError as error:
            self.skipped = error.message

    def checkpoint(self) -> list[tuple[float, float]]:
        """(predicted, observed) bytes. A printed GB is 10^9 unless the row says, with its evidence, that it is 2^30."""
        if not self.groups or self.pruned:
            return []
        size = float(sum(group.bytes for group in self.groups)) + self.arch.vision_bytes
        if "disk_gib" in self.observed:
            return [(size, self.observed["disk_gib"] * GIB)]
        if "disk_gb" in self.observed:
            unit = GIB if str(self.row.get("disk_unit", "")).startswith("GiB") else 1e9
            return [(size, self.observed["disk_gb"] * unit)]
        return []

    def weights(self) -> list[tuple[float, float]]:
        stages = [self.observed.get(f"weights_gib_per_gpu{stage}") for stage in ("", "_stage0")]
        observed = max((value for value in stages if value), default=None)
        if observed is None or self.plan is None or self.pruned:
            return []
        observed += self.observed.get("cpu_offload_gib_per_gpu", 0)
        plan = self.plan
        if plan.deployment.pp > 1:
            plan = max_stage(self.groups, self.arch, plan.deployment)
        logged = plan.weights_bytes if plan.deployment.engine == "vllm" else plan.weights.main
        return [(logged / GIB, observed)]

    def kv_given_memory(self) -> list[tuple[float, float]]:
        """Tokens from the bytes that the row states: the pool's GiB, or SGLang's free memory after loading."""
        if "kv_tokens" not in self.observed or self.plan is None:
            return []
        pool = self.observed.get("kv_cache_gib_per_gpu")
        before, after = self.observed.get("available_gib_before_load"), self.observed.get("available_gib_after_load")
        plan = self.plan
        if before and after and plan.deployment.engine == "sglang" and self.row.get("mem_fraction_static"):
            pool = after - before * (1 - plan.limits.fraction)
        if not pool or pool <= 0:
            return []
        tokens = tokens_in(pool * GIB, plan.kv.sized_bytes, plan.deployment.facts.page_tokens(self.arch))
        return [(tokens, self.observed["kv_tokens"])]

    def kv_from_flags(self) -> list[tuple[float, float]]:
        """Tokens from the launch options alone."""
        if (
            "kv_tokens" not in self.observed
            or self.plan is None
            or self.pruned
            or self.unknown_gpu
            or self.observed.get("oom")
        ):
            return []
        return [(self.plan.kv_tokens, self.observed["kv_tokens"])]


KINDS = {
    "checkpoint bytes": Case.checkpoint,
    "weights per GPU (GiB)": Case.weights,
    "KV tokens given the pool": Case.kv_given_memory,
    "KV tokens from flags": Case.kv_from_flags,
}


def max_stage(groups: list[WeightGroup], arch: Architecture, d: Deployment) -> MemoryPlan:
    """The plan of the stage with the most weights: the tightest one unless the cache says otherwise."""
    from halfbyte.plan.weights import rank_weights

    plan = plan_memory(groups, arch, d)
    heaviest = max(rank_weights(groups, arch, d), key=lambda stage: stage.main + stage.draft)
    return MemoryPlan(**{**plan.__dict__, "weights": heaviest, "weights_bytes": heaviest.main + heaviest.draft})


def summary(errors: list[float]) -> dict[str, float]:
    """Number of rows, median, 90th percentile and worst, in percent."""
    ordered = sorted(errors)
    return {
        "rows": len(ordered),
        "median_percent": round(statistics.median(ordered), 2) if ordered else 0.0,
        "p90_percent": round(ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))], 2) if ordered else 0.0,
        "max_percent": round(max(ordered, default=0.0), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--observations", type=Path, default=DATA / "observed-memory.jsonl")
    parser.add_argument("--configs", type=Path, default=DATA / "model-configs.json")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    configs = json.loads(options.configs.read_text())
    cases = [Case(json.loads(line), configs) for line in options.observations.read_text().splitlines() if line.strip()]
    report = accuracy(cases, quiet=options.json)
    explained = accuracy([case for case in cases if case.id not in UNEXPLAINED], quiet=True)
    report["not used"] = {case.id: case.skipped for case in cases if case.skipped}
    report["bars"] = bars = bars_of(report)
    report["bars without unexplained rows"] = bars_of(explained)
    if options.json:
        print(json.dumps(report, indent=1))
        return 0 if all(bars.values()) else 1
    print("\nnot used")
    for name, why in report["not used"].items():
        print(f"  {name:42} {why}")
    print("\ncounted, but not explained by the plan")
    for name, why in UNEXPLAINED.items():
        if any(case.id == name for case in cases):
            print(f"  {name:42} {why}")
    print("\nbars                                over all rows   without the unexplained")
    for bar, met in bars.items():
        rest = report["bars without unexplained rows"][bar]
        print(f"  {bar:34}{'met' if met else 'MISSED':16}{'met' if rest else 'MISSED'}")
    return 0 if all(bars.values()) else 1


def accuracy(cases: list[Case], quiet: bool) -> dict[str, Any]:
    """Errors by kind, and refusals against `fits`; printed row by row unless quiet."""
    report: dict[str, Any] = {}
    for kind, measure in KINDS.items():
        rows = [(case.id, *pair) for case in cases if not case.skipped for pair in measure(case)]
        errors = [100 * abs(predicted - seen) / seen for _, predicted, seen in rows]
        report[kind] = summary(errors)
        if quiet:
            continue
        print(f"\n{kind}")
        for (name, predicted, seen), error in zip(rows, errors, strict=True):
            print(f"  {name:42} {predicted:>18,.2f} {seen:>18,.2f} {error:7.2f} %")
        print(f"  {report[kind]}")
    report["fit"] = fit_report(cases, quiet)
    return report


def bars_of(report: dict[str, Any]) -> dict[str, bool]:
    """The bars of the module's docstring, each met or not."""
    return {
        "checkpoint bytes": report["checkpoint bytes"]["max_percent"] <= 0.5,
        "weights median": report["weights per GPU (GiB)"]["median_percent"] <= 2,
        "weights 90th percentile": report["weights per GPU (GiB)"]["p90_percent"] <= 6,
        "KV tokens median": report["KV tokens given the pool"]["median_percent"] <= 8,
        "out of memory": report["fit"]["oom_found"] >= 0.9 * report["fit"]["oom"],
        "no working server called unfit": not report["fit"]["wrongly_unfit"],
    }


def fit_report(cases: list[Case], quiet: bool) -> dict[str, Any]:
    """Posted refusals against `fits`; working servers called unfit are named."""
    usable = [
        case for case in cases if case.plan is not None and not case.skipped and not (case.pruned or case.unknown_gpu)
    ]
    ooms = [case for case in usable if case.observed.get("oom")]
    works = [case for case in usable if case.observed.get("works") or case.observed.get("oom") is False]
    missed = [case.id for case in ooms if case.plan is not None and case.plan.fits]
    wrong = [case.id for case in works if case.plan is not None and not case.plan.fits]
    if not quiet:
        print("\nfit")
        for case in [*ooms, *works]:
            assert case.plan is not None
            posted = "oom  " if case.observed.get("oom") else "works"
            said = "fits" if case.plan.fits else "; ".join(case.plan.problems)
            if posted == "oom  " or not case.plan.fits:
                print(f"  {posted} {case.id:42} {said[:150]}")
        found = len(ooms) - len(missed)
        print(f"  {found} of {len(ooms)} refusals found, {len(wrong)} of {len(works)} working called unfit")
    return {
        "oom": len(ooms),
        "oom_found": len(ooms) - len(missed),
        "missed": missed,
        "works": len(works),
        "wrongly_unfit": wrong,
    }


if __name__ == "__main__":
    sys.exit(main())
