"""Loading holds the packed model and about one layer more, never the BF16 one."""

import subprocess
import sys
from pathlib import Path

from small import small_tensors, write_checkpoint

from halfbyte.api import quantize

LAYERS = 8

MEASURE = """
import gc, sys, threading, time, torch
import halfbyte.runtime
from transformers import AutoModelForCausalLM

def anonymous():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))

AutoModelForCausalLM.from_pretrained(sys.argv[1])  # imports, and the buffers of first use
gc.collect()
before = peak = anonymous()
done = False

def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.0005)

watcher = threading.Thread(target=watch)
watcher.start()
model = AutoModelForCausalLM.from_pretrained(sys.argv[2])
done = True
watcher.join()
print(peak - before, sum(p.nbytes for p in model.parameters()))
"""
"""Anonymous memory, sampled: safetensors maps the files, and mapped pages that are read belong to the page cache."""


def test_peak_memory_is_the_packed_model_and_a_layer(tmp_path: Path) -> None:
    sizes = {"hidden_size": 512, "moe_intermediate_size": 256, "num_experts": 16}
    for name, changes in (("tiny", {}), ("large", sizes | {"num_hidden_layers": LAYERS})):
        write_checkpoint(tmp_path / f"{name}-source", *small_tensors("Qwen3-30B-A3B", 0, **changes))
        quantize(tmp_path / f"{name}-source", tmp_path / name)
    folders = [str(tmp_path / name) for name in ("tiny", "large")]
    done = subprocess.run([sys.executable, "-c", MEASURE, *folders], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    peak, packed = map(int, done.stdout.split())
    assert packed > 25e6  # 0.56 bytes for each of 50 million weights; BF16 would be 100 MB
    one_layer = packed / LAYERS
    print(f"peak {peak / 1e6:.1f} MB, packed {packed / 1e6:.1f} MB, layer {one_layer / 1e6:.1f} MB")
    assert peak < packed + 1.5 * one_layer
