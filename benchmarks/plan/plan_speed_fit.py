"""Fit the speed model's factors on the posted runs and print every row against the model.

    python -m benchmarks.plan.plan_speed_fit [--fit]

Without --fit: the shipped factors (`src/halfbyte/plan/data/efficiency.yaml`). With it: a grid search of layer_ms and
compute, least squares of the logarithm of time per output token: over all rows for the default, then for each engine
and GPU family. Rows of one stream say nothing about prefill, so a group with fewer than three loaded rows (decode-only
rows are none) keeps the default's compute; a group of one row takes the spread of all rows.
"""

import argparse
import json
import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

from benchmarks.plan.plan_accuracy import DATA, config_of, recipe_of
from halfbyte.models import architecture_of
from halfbyte.plan.deployment import make_deployment
from halfbyte.plan.hardware import find_gpu
from halfbyte.plan.memory import plan_memory
from halfbyte.plan.recipes import groups_on_paper, storage_by_recipe
from halfbyte.plan.throughput import Efficiency, SpeedModel, efficiency
from halfbyte.plan.work import StepWork, work_of

Row = tuple[dict[str, Any], StepWork]


def load() -> dict[str, list[Row]]:
    """Rows with their work, by "engine family"."""
    configs = json.loads((DATA / "model-configs.json").read_text())
    found: dict[str, list[Row]] = defaultdict(list)
    for line in (DATA / "observed-throughput.jsonl").read_text().splitlines():
        row = json.loads(line)
        arch, gpu = architecture_of(config_of(row["model"], configs) or {}), find_gpu(row["gpu"])
        groups = groups_on_paper(arch, storage_by_recipe(recipe_of(row)))
        d = make_deployment(
            arch,
            gpu,
            row["num_gpus"],
            row["engine"],
            tp=row["tp"],
            mtp_tokens=row["mtp_tokens"],
            context=row.get("context_length", 32768),
            kv_dtype=row.get("kv_cache_dtype"),
        )
        memory = plan_memory(groups, arch, d)
        found[f"{row['engine']} {gpu.family}"].append((row, work_of(groups, arch, memory)))
    return found


def predicted(row: dict[str, Any], work: StepWork, factors: Efficiency) -> tuple[float, float]:
    """(ms per output token of a stream, TTFT in ms). decode_only rows were measured with no prefill between steps."""
    model = SpeedModel(work, None, factors)
    speed = model.at(row["concurrency"], row["input_tokens"], row["output_tokens"])
    if row.get("decode_only"):
        context = row["input_tokens"] + row["output_tokens"] / 2
        return model.decode_step_ms(row["concurrency"], context) / model.tokens_per_step, speed.ttft_ms
    return 1e3 * row["concurrency"] / speed.output_tokens_per_s, speed.ttft_ms


def observed(row: dict[str, Any]) -> float:
    """ms per output token: stated, or concurrency over the stated rate."""
    seen = row["observed"]
    return float(seen["tpot_ms"] if "tpot_ms" in seen else 1e3 * row["concurrency"] / seen["output_tokens_per_s"])


def fit(rows: list[Row], start: Efficiency) -> Efficiency:
    """The grid point with the least squared log error."""
    loaded = sum(row["concurrency"] > 1 and not row.get("decode_only") for row, _ in rows)
    shares = [start.compute] if loaded < 3 else [n / 100 for n in range(5, 65, 2)]
    points = [replace(start, layer_ms=n / 200, compute=share) for n in range(10, 80) for share in shares]

    def error(factors: Efficiency) -> float:
        return sum(math.log(observed(row) / predicted(row, work, factors)[0]) ** 2 for row, work in rows)

    return min(points, key=error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fit", action="store_true")
    wanted = parser.parse_args().fit
    groups = load()
    every = [row for part in groups.values() for row in part]
    pooled = efficiency("none", "none")
    if wanted:
        pooled = fit(every, pooled)
    for group, rows in {"all rows": every, **groups}.items():
        factors = pooled if group == "all rows" else efficiency(*group.split())
        if wanted and group != "all rows":
            factors = fit(rows, pooled)
        print(f"{group}: layer_ms {factors.layer_ms:g}, compute {factors.compute:g}, bandwidth {factors.bandwidth:g}")
        ratios, firsts = [], []
        for row, work in rows:
            per_token, ttft = predicted(row, work, factors)
            ratios.append(observed(row) / per_token)
            first = row["observed"].get("ttft_ms")
            firsts += [first / ttft] if first else []
            shown = f"TTFT {ttft:6.0f} / {first}" if first else ""
            print(f"  {row['id']:34} ms per token {per_token:7.2f} / {observed(row):7.2f} = {ratios[-1]:.2f}   {shown}")
        if len(rows) == 1:
            print("  one row: it fits by construction, and the spread of all rows is the only one known")
            continue
        spread = f"decode_spread: [{min(ratios):.2f}, {max(ratios):.2f}]"
        print(f"  {spread}" + (f", prefill_spread: [{min(firsts):.2f}, {max(firsts):.2f}]" if len(firsts) > 1 else ""))


if __name__ == "__main__":
    main()
