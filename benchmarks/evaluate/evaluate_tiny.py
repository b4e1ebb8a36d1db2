"""What a benchmark can tell of four bits that KL tells: suite `tiny` asked of the tiny model, BF16 against six others.

    python -m benchmarks.evaluate.evaluate_tiny --work FOLDER [--items 100] [--long 10]

Each variant is served by llama.cpp and asked the first items of each task set as `halfbyte evaluate --suite tiny` asks
them (--long: of long_context, whose items take ten seconds each on one core), then judged against BF16 at 2 points.
KL is `halfbyte compare`'s machinery over 16 windows of held-out text, as in compare_tiny.py. FP8 and everything in four
bits are BF16 copies whose matrices were rounded and decoded: no engine here loads them. The same --work goes on.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.compare.compare_tiny import LINEARS, TINY, by_role, measured, windows
from benchmarks.quantize.rounded_copy import rounded_copy
from benchmarks.table import record, show
from halfbyte.api import quantize
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.evaluate.judging import judge
from halfbyte.evaluate.power import item_variance
from halfbyte.evaluate.running.arms import Asked, answers
from halfbyte.evaluate.running.catalogue import SuiteOptions, asked_suites
from halfbyte.evaluate.running.chosen import chosen
from halfbyte.evaluate.samples import Arm
from halfbyte.formats import fp8_block
from halfbyte.formats.nvfp4 import stored as nvfp4
from halfbyte.models.roles import Role
from halfbyte.numbers.resolution import SMALLEST_MARGIN
from halfbyte.progress import Plain

MARGIN = 2.0
ROUNDINGS = ("max", "sweep", "gptq")
COPIES = {
    "FP8": (by_role(*LINEARS), fp8_block.FORMAT),
    "everything": (by_role(*(set(Role) - {Role.NORM}), but=("weights_proj",)), nvfp4.FORMAT),
}


def made(name: str, work: Path) -> Path:
    """The variant's folder, made now if it is not there."""
    folder = work / "models" / name
    if name == "BF16":
        return TINY
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    if name in COPIES:
        role, form = COPIES[name]
        linked = folder.with_name(f"{name}-linked")
        shutil.rmtree(linked, ignore_errors=True)
        with Checkpoint.open(TINY) as source:
            rounded_copy(source, linked, role, form)
        shutil.copytree(linked, folder.with_name(f"{name}-new"), dirs_exist_ok=True)
        folder.with_name(f"{name}-new").rename(folder)
    else:
        data = [str(TINY / "calibration.jsonl")] if name == "gptq" else []
        quantize(TINY, folder, rounding=name, calibrate=data or None)
    return folder


def arm_of(name: str, work: Path, items: int, long: int) -> Arm:
    suites = tuple(
        replace(suite, items=suite.items[: long if suite.name == "long_context" else items])
        for suite in asked_suites("tiny", SuiteOptions())
    )
    found = answers(
        Asked(suites, {"candidate": chosen(str(made(name, work)))}, name="tiny"), work / "runs" / name, Plain()
    )
    return found.candidate


def items_for(discordance: float) -> int:
    """Of each suite, to decide the margin by the mean over six suites of that discordance."""
    return round(SMALLEST_MARGIN**2 * item_variance(0, 1, 0, discordance) / 6 / (MARGIN / 100) ** 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--long", type=int, default=10)
    parser.add_argument("--only", default="", help="comma-separated variants; none for all")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else ["FP8", *ROUNDINGS, "everything"]
    base = arm_of("BF16", options.work, options.items, options.long)
    judged = {
        name: judge(arm_of(name, options.work, options.items, options.long), base, MARGIN).as_json() for name in names
    }
    data = options.work / "windows.jsonl"
    windows(open_tokenizer(TINY), data, 16)
    compared = measured(data, [(name, made(name, options.work), None, 0) for name in names])
    rows, kept = [], {}
    for name in names:
        row, kl = judged[name], compared[name]["kl"]
        flips = sum(suite["n"] * _discordance(suite) for suite in row["suites"]) / sum(s["n"] for s in row["suites"])
        low, high = row["pooled"]["interval"]
        rows.append(
            [
                name,
                f"{kl['mean']:.4f} [{kl['low']:.4f}, {kl['high']:.4f}]",
                f"{row['pooled']['difference']:+.2f} [{low:+.2f}, {high:+.2f}]",
                row["verdict"],
                f"{100 * flips:.1f} %",
                f"{items_for(flips):,}",
                *(f"{suite['candidate']:.1f} ({suite['verdict'][0]})" for suite in row["suites"]),
            ]
        )
        kept[name] = {"kl": kl, "pooled": row["pooled"], "verdict": row["verdict"], "discordance": flips} | {
            "suites": [
                {key: suite[key] for key in ("name", "n", "candidate", "baseline", "difference", "interval", "verdict")}
                for suite in row["suites"]
            ]
        }
    first: list[Any] = judged[names[0]]["suites"]
    columns = ["variant", "KL [95 %]", "points [90 %]", "at 2 points", "differ", "items wanted"]
    bases = ", ".join(f"{suite['name']} {suite['baseline']:.1f}, n {suite['n']}" for suite in first)
    title = f"suite tiny against BF16 ({bases})"
    show(title, [*columns, *(suite["name"] for suite in first)], rows)
    record("evaluate_tiny", {"items": options.items, "long": options.long, "results": kept})


def _discordance(suite: dict[str, Any]) -> float:
    """Share of items that one of both alone gets right, from difference and its error (binary single runs)."""
    difference, error = suite["difference"] / 100, suite["standard_error"] / 100
    return float(error**2 * (suite["n"] - 1) + difference**2)


if __name__ == "__main__":
    main()
