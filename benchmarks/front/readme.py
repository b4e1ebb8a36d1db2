"""The README's table of five figures against peers, made from the last rows of benchmarks/results/.

python -m benchmarks.front.readme            # rewrite it
python -m benchmarks.front.readme --check    # exit 1 if README says otherwise
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- figures: benchmarks/front/readme.py -->\n", "<!-- end of figures -->\n"


def last(name: str, **wanted: Any) -> dict[str, Any]:
    """The last row of a benchmark. wanted: values that it must have."""
    rows = [json.loads(line) for line in (ROOT / f"benchmarks/results/{name}.jsonl").read_text("utf-8").splitlines()]
    row: dict[str, Any] = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())][-1]
    return row


def figures() -> list[tuple[str, str, str, str]]:
    """What, ours, the best peers, the benchmark."""
    encode, quantize, export, moe = (last(name) for name in ("encode", "quantize", "export", "runtime_moe"))
    ours = encode["gb_per_s"]["ours, max"][0]
    peers = ", ".join(f"{name} {row['gb_per_s_median']:.3f}" for name, row in encode["peers"].items())
    small, modelopt = quantize["small"], quantize["modelopt"]
    rounding = {(row["peer"], row["algorithm"]): row["a4-sim"]["kl"] for row in last("rounding_peers")["rows"]}
    best = {
        peer: min((kl, name) for (who, name), kl in rounding.items() if who == peer)
        for peer in ("ModelOpt", "llm-compressor")
    }
    runs = export["runs"]
    [layer] = [row for row in moe["rows"] if (row["shape"], row["tokens"]) == ("TP8", 1)]
    return [
        ("encode to NVFP4, same bytes, 2 cores, GB/s of BF16", f"{ours:.2f}", peers, "encode"),
        (
            f"{modelopt['src_bytes'] / 1e9:.2f} GB checkpoint to NVFP4 on disk, s; peak GB",
            f"{small['wall_seconds']:.1f}; {small['peak_rss_bytes'] / 1e9:.2f}",
            f"ModelOpt {modelopt['seconds']:.1f}; {modelopt['peak_rss_bytes'] / 1e9:.2f}",
            "quantize",
        ),
        (
            "KL of W4A4 at equal bytes, tiny-glm, `--rounding gptq`",
            f"{rounding['Halfbyte', 'gptq']:.4f}",
            ", ".join(f"{peer}'s {name} {kl:.4f}" for peer, (kl, name) in best.items()),
            "rounding_peers",
        ),
        (
            f"{export['bytes'] / 1e9:.2f} GB to GGUF, s; peak GB",
            f"{runs['halfbyte']['median_seconds']:.1f}; {runs['halfbyte']['peak_rss_bytes'] / 1e9:.2f}",
            f"llama.cpp's converter {runs['llama.cpp']['median_seconds']:.1f}; "
            f"{runs['llama.cpp']['peak_rss_bytes'] / 1e9:.2f}",
            "export",
        ),
        (
            "GLM-5.2's expert layer, one token, TP8, one H100, ms",
            f"{layer['ours']:.3f}",
            f"humming-kernels {layer['indexed']:.3f}, BF16 {layer['bf16']:.3f}",
            "runtime_moe",
        ),
    ]


def table() -> str:
    head = "| | Halfbyte | peers | `benchmarks/` |\n|---|---|---|---|\n"
    return head + "".join(f"| {what} | {ours} | {peers} | `{name}` |\n" for what, ours, peers, name in figures())


def rewritten(text: str) -> str:
    """README with the table as the results have it now."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise SystemExit(f"README.md: wanted a table between {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + table() + END + after


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true", help="write nothing")
    chosen = options.parse_args()
    text = README.read_text("utf-8")
    wanted = rewritten(text)
    if chosen.check:
        sys.exit("README.md: its figures are not those of benchmarks/results" if text != wanted else 0)
    README.write_text(wanted, "utf-8")


if __name__ == "__main__":
    main()
