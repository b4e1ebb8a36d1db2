"""Which activation scale, with which rounding, hurts the tiny model least at the same bytes.

    python -m benchmarks.calibrate.activation_scales [--tokens 32000]

Routed experts in NVFP4, activations rounded as on Blackwell (a4-sim), on the windows of compare_tiny.py. Scales are
calibrated on calibration.jsonl, rows cut to 512 tokens: the largest amax, its 99.99th percentile, the value of least
squared error, our headroom, ModelOpt's headroom calibrator (the larger of 16,384 times the 1st percentile of block amax
and the 99.99th percentile); or the constant 1 (amax 2688). What unseen outliers do: activation_outliers.py.
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.calibrate.activation_outliers import RULES as BY_BLOCKS
from benchmarks.compare.compare_tiny import TINY, measured, windows
from benchmarks.table import record, show
from halfbyte.api import calibrate, quantize
from halfbyte.calibrate.histogram import Histogram
from halfbyte.calibrate.shares import CEILING
from halfbyte.data.tokenizer import open_tokenizer

RULES = {"max": "max", "percentile": "percentile:99.99", "mse": "mse", "headroom": "headroom"}


def modelopt_headroom(source: Path, out: Path) -> None:
    """The scales of ModelOpt's rule, from the histograms in a scales file."""
    document = json.loads(source.read_text())
    values = {}
    for name, one in document["halfbyte"]["inputs"].items():
        blocks = [Histogram.from_json(part) for part in one["blocks"].values()]
        values[name] = CEILING * BY_BLOCKS["ModelOpt headroom"](blocks[0] + blocks[1])
    out.write_text(json.dumps(values))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tokens", type=int, default=32_000, help="to calibrate on")
    options.add_argument("--windows", type=int, default=16)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        scales: dict[str, str | Path] = {"constant 1": "1"}
        for label, rule in RULES.items():
            scales[label] = work / f"{label}.json"
            data = [str(TINY / "calibration.jsonl")]
            calibrate(TINY, data, scales[label], tokens=chosen.tokens, max_length=512, amax=rule)
        scales["ModelOpt headroom"] = work / "modelopt.json"
        modelopt_headroom(work / "max.json", work / "modelopt.json")
        models: list[tuple[str, Path, str | None, int]] = []
        for rounding in ("max", "sweep"):
            for label, scale in scales.items():
                folder = work / f"{rounding}-{label.replace(' ', '-')}"
                size = quantize(TINY, folder, rounding=rounding, input_scale=scale).bytes_out
                models.append((f"{rounding}, {label}", folder, "a4-sim", size))
        windows(open_tokenizer(TINY), work / "windows.jsonl", chosen.windows)
        results = measured(work / "windows.jsonl", models)
    rows = []
    for label, row in results.items():
        kl, ratio = row["kl"], row["perplexity"]
        interval = f"{kl['mean']:.4f} [{kl['low']:.4f}, {kl['high']:.4f}]"
        rows.append([*label.split(", "), interval, f"{ratio['candidate']:.3f}", f"{row['top1_agreement']['mean']:.1%}"])
    show("tiny-glm, routed experts W4A4", ["rounding", "input scale", "KL [95 %]", "perplexity", "top-1"], rows)
    record("activation_scales", {"tokens": chosen.tokens, "windows": chosen.windows, "results": results})


if __name__ == "__main__":
    main()
