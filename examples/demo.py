"""`make demo`: the main job on the tiny model, each step as a command that you can paste."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

SOURCE = "examples/tiny-glm"
OUTPUT = "demo-output/tiny-glm-nvfp4"
HELD_OUT = Path("demo-output/heldout.jsonl")
CALIBRATE = [
    "--calibrate",
    f"{SOURCE}/calibration.jsonl",
    "--calibration-length",
    "512",
    "--calibration-tokens",
    "16000",
]

STEPS = (
    ("What the checkpoint holds", ["inspect", SOURCE]),
    (
        "Routed experts to NVFP4, everything else as it is; activation scales measured on text",
        ["quantize", SOURCE, OUTPUT, *CALIBRATE, "--overwrite"],
    ),
    ("Is it what quantizing that source gives?", ["verify", SOURCE, OUTPUT]),
    ("What it holds now", ["inspect", OUTPUT]),
    (
        "What four bits cost, on text that the model has not seen",
        ["compare", SOURCE, OUTPUT, "--data", str(HELD_OUT), "--slice", "language"],
    ),
    ("May it go into production, by the default policy?", ["gate", OUTPUT]),
)


def run(*arguments: str) -> None:
    """Show a command, run it, stop the demo if it fails."""
    print(f"\n$ halfbyte {shlex.join(arguments)}\n", flush=True)
    done = subprocess.run([sys.executable, "-m", "halfbyte", *arguments])
    if done.returncode:
        sys.exit(done.returncode)


def write_held_out() -> None:
    """heldout.txt as documents of some 3,000 characters, every fourth, labelled by language."""
    text = Path(SOURCE, "heldout.txt").read_text("utf-8")
    HELD_OUT.parent.mkdir(exist_ok=True)
    with open(HELD_OUT, "w", encoding="utf-8") as file:
        for start in range(0, len(text), 12_000):
            part = text[start : start + 3_000]
            hangul = sum("\uac00" <= letter <= "\ud7a3" for letter in part)
            file.write(json.dumps({"text": part, "language": "ko" if hangul > len(part) / 5 else "en"}) + "\n")


def main() -> None:
    os.chdir(Path(__file__).parents[1])
    write_held_out()
    os.environ.setdefault("HALFBYTE_CACHE", "demo-output/cache")
    for title, arguments in STEPS:
        print(f"\n== {title}")
        run(*arguments)
    print("\n== One question of each task set, answered by the quantized model through llama.cpp")
    for tasks in sorted(Path(SOURCE, "tasks").glob("*.jsonl")):
        run("chat", OUTPUT, "--messages", str(tasks))
    print(f"\nThe quantized checkpoint is in {OUTPUT}/ : weights, config.json, tokenizer, halfbyte.json, model card.")


if __name__ == "__main__":
    main()
