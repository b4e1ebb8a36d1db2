"""`make demo`: the main job on the tiny model, each step as a command that you can paste; `make demo-full` adds what
needs torch (calibrate, compare) and a harness (evaluate), and serves the model."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCE = "examples/tiny-glm"
OUTPUT = "demo-output/tiny-glm-nvfp4"
SCALES = "demo-output/scales.json"
GGUF = "demo-output/tiny-glm-nvfp4.gguf"
REPORT = "demo-output/report.html"
HELD_OUT = Path("demo-output/heldout.jsonl")
CALIBRATE = ["--data", f"{SOURCE}/calibration.jsonl", "--max-length", "512", "--tokens", "16000", "-o", SCALES]
PLAN = ["--gpu", "b200", "--gpus", "1", "--context", "4k", "-o", f"{OUTPUT}/plan.json"]
EVALUATE = [
    "--suite",
    "tiny",
    "--limit",
    "5",
    "--margin",
    "20",
    "--anyway",
    "--candidate",
    OUTPUT,
    "--baseline",
    SOURCE,
]
INCONCLUSIVE = 3
"""Exit code of a verdict that five items of a task may well end in."""


def main(full: bool) -> None:
    os.chdir(Path(__file__).parents[1])
    HELD_OUT.parent.mkdir(exist_ok=True)
    os.environ.setdefault("HALFBYTE_CACHE", "demo-output/cache")
    begun = time.monotonic()
    quantize = ["quantize", SOURCE, OUTPUT, "--overwrite"]
    step("What the checkpoint holds", "inspect", SOURCE)
    if full:
        step("Activation scales, measured on text", "calibrate", SOURCE, *CALIBRATE)
        quantize += ["--input-scale", SCALES]
    step("Routed experts to NVFP4, everything else as it is", *quantize)
    step("What it holds now", "inspect", OUTPUT)
    step("Is it what quantizing that source gives?", "verify", SOURCE, OUTPUT)
    if full:
        write_held_out()
        compare = ["compare", SOURCE, OUTPUT, "--data", str(HELD_OUT), "--slice", "language", "--recall", "256,512"]
        step("What four bits cost, on text that the model has not seen", *compare)
        step("Do benchmarks agree?", "evaluate", *EVALUATE, accepted=(0, INCONCLUSIVE))
    step("May it go into production, by the default policy?", "gate", OUTPUT)
    step("What one GPU would hold, and how fast", "plan", OUTPUT, *PLAN)
    step("The same bytes for llama.cpp", "export", OUTPUT, GGUF, "--overwrite")
    for tasks in sorted(Path(SOURCE, "tasks").glob("*.jsonl" if full else "reasoning.jsonl")):
        step(f"A question of {tasks.stem}, answered by the quantized model", "chat", GGUF, "--messages", str(tasks))
    if full:
        serve()
    step("All evidence on one page", "report", OUTPUT, "-o", REPORT)
    print(f"\nDone in {time.monotonic() - begun:.0f} s. The checkpoint is in {OUTPUT}, the report:")
    print(Path(REPORT).resolve())


def step(title: str, *arguments: str, accepted: tuple[int, ...] = (0,)) -> None:
    """Show a command, run it, stop the demo if it fails."""
    print(f"\n== {title}\n$ halfbyte {shlex.join(arguments)}\n", flush=True)
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "halfbyte", *arguments])
    if done.returncode not in accepted:
        sys.exit(done.returncode)
    print(f"({time.monotonic() - begun:.1f} s)")


def write_held_out() -> None:
    """heldout.txt as documents of some 3,000 characters, every fourth, labelled by language."""
    text = Path(SOURCE, "heldout.txt").read_text("utf-8")
    with open(HELD_OUT, "w", encoding="utf-8") as file:
        for start in range(0, len(text), 12_000):
            part = text[start : start + 3_000]
            hangul = sum("\uac00" <= letter <= "\ud7a3" for letter in part)
            file.write(json.dumps({"text": part, "language": "ko" if hangul > len(part) / 5 else "en"}) + "\n")


def serve() -> None:
    """One question through the door."""
    question = {"role": "user", "content": "What is 7 plus 5?"}
    with served("serve", GGUF, "--port", "0") as url:
        body = json.dumps({"model": Path(GGUF).stem, "messages": [question], "max_tokens": 64}).encode()
        request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})
        print(json.dumps(answered(request), indent=1, ensure_ascii=False))


def answered(request: urllib.request.Request, seconds: float = 60) -> Any:
    """The answer of a door that may not be open yet."""
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError) or time.monotonic() > until:
                raise
            time.sleep(0.2)


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """The address of a door that is open for the while."""
    print(f"\n== Served to tenants\n$ halfbyte {shlex.join(arguments)}\n", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "halfbyte", *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            print(line, end="", flush=True)
            address = next((word for word in line.split() if word.startswith("http://")), None)
            if address is not None:
                yield address.rstrip("/.,;").removesuffix("/v1")
                return
        sys.exit(process.wait() or 1)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


if __name__ == "__main__":
    main("--full" in sys.argv[1:])
