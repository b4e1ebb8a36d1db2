"""`make demo`: the main job on the tiny model, each step as a command that you can paste."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

SOURCE = "examples/tiny-glm"
OUTPUT = "demo-output/tiny-glm-nvfp4"

STEPS = (
    ("What the checkpoint holds", ["inspect", SOURCE]),
    ("Routed experts to NVFP4, everything else as it is", ["quantize", SOURCE, OUTPUT, "--overwrite"]),
    ("Is it what quantizing that source gives?", ["verify", SOURCE, OUTPUT]),
    ("What it holds now", ["inspect", OUTPUT]),
)


def run(*arguments: str) -> None:
    """Show a command, run it, stop the demo if it fails."""
    print(f"\n$ halfbyte {shlex.join(arguments)}\n", flush=True)
    done = subprocess.run([sys.executable, "-m", "halfbyte", *arguments])
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    os.chdir(Path(__file__).parents[1])
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
