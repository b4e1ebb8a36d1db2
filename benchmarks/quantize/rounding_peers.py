"""The same rounding problem given to ModelOpt, llm-compressor and Halfbyte: same data, same windows, equal bytes.

    python -m benchmarks.quantize.rounding_peers [--windows 16] [--keep FOLDER] [--only ModelOpt.gptq Halfbyte.gptq]

tiny-glm's routed experts in NVFP4, by every algorithm that the three offer and that does not change other weights.
Whoever uses data gets all documents of calibration.jsonl as the same token ids. (Halfbyte's gptq keeps every 32nd of
them for its evidence and rounds on the rest.) How the peers are called, and what was needed to run them on a CPU, is
said in peers/round_modelopt.py and peers/round_llmcompressor.py; a peer runs in an environment of its own
(`make .venv-peers/ready .venv-llmcompressor/ready`), and without it is left out, which the output says.

Only the rounding is compared: a peer's codes, block scales and tensor scales are put into the checkpoint that
Halfbyte's max makes, so everything else is equal, input_scale = 1 included. W4A16 is that checkpoint decoded, in
float32; W4A4 is our runtime's a4-sim. Windows and measures are those of tiny_accuracy.py. Seconds are for rounding and
writing, without loading, on whatever the machine was doing. --keep: reuse checkpoints that an earlier run left there.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import halfbyte.runtime as runtime
from benchmarks.chat.runtime_accuracy import load
from benchmarks.compare.tiny_accuracy import TINY, load_decoded, log_probabilities, perplexity, windows
from benchmarks.quantize.rounding import divergence, made
from benchmarks.table import PEERS_PYTHON, ROOT, record, show
from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.documents import load as load_documents
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.formats.catalogue import NVFP4
from halfbyte.models import roles_of

ALGORITHMS = {
    "Halfbyte": ("max", "sweep", "gptq"),
    "ModelOpt": ("max", "mse", "local_hessian", "gptq", "gptq_tuned"),
    "llm-compressor": ("rtn", "mse", "expanded_mse", "gptq", "gptq_routed", "gptq_tuned"),
}
ENVIRONMENTS = {
    "ModelOpt": (PEERS_PYTHON, "round_modelopt.py"),
    "llm-compressor": (ROOT / ".venv-llmcompressor/bin/python", "round_llmcompressor.py"),
}


def write_tokens(path: Path) -> None:
    """The documents of calibration.jsonl as Halfbyte reads them."""
    documents = load_documents([str(TINY / "calibration.jsonl")], open_tokenizer(TINY)).documents
    path.write_text("".join(json.dumps({"input_ids": document.ids.tolist()}) + "\n" for document in documents))


def rounded_by_us(algorithm: str, folder: Path) -> dict[str, Any]:
    report = folder / f"Halfbyte-{algorithm}.json"
    if not report.exists():
        seconds = made(TINY, folder, algorithm)[1]
        report.write_text(json.dumps({"peer": "Halfbyte", "algorithm": algorithm, "seconds": round(seconds, 1)}))
    result: dict[str, Any] = json.loads(report.read_text())
    return result


def rounded_by(peer: str, algorithm: str, folder: Path) -> dict[str, Any] | None:
    """Run a peer, or find what an earlier run left; None, said aloud, where its environment is missing."""
    out, report = folder / f"{peer}-{algorithm}", folder / f"{peer}-{algorithm}.json"
    if not report.exists():
        python, script = ENVIRONMENTS[peer]
        if not python.exists():
            print(f"no {python}: {peer} {algorithm} is left out")
            return None
        command = [str(python), str(ROOT / "benchmarks/peers" / script), "--src", str(TINY), "--dst", str(out)]
        command += ["--tokens", str(folder / "tokens.jsonl"), "--algorithm", algorithm]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{script} --algorithm {algorithm} failed:\n{done.stderr[-2000:]}")
        report.write_text(done.stdout.strip().splitlines()[-1])
    result: dict[str, Any] = json.loads(report.read_text())
    return result


def transplant(source: Path, template: Path, out: Path) -> None:
    """`template`, a checkpoint of ours, with the NVFP4 matrices of `source`, a peer's.

    compressed-tensors stores the reciprocal of `weight_scale_2`; codes and block scales are as ModelOpt's and ours.
    """
    given = {name: tensor for shard in source.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    tensors = {name: tensor for shard in template.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    with Checkpoint.open(template) as checkpoint:
        entries = inventory(checkpoint.tensors, roles_of(checkpoint.config))
    for entry in entries:
        if entry.format != NVFP4:
            continue
        module, parts = entry.role.module, entry.tensors
        if f"{module}.weight_packed" in given:
            given[f"{module}.weight"] = given[f"{module}.weight_packed"]
            given[f"{module}.weight_scale_2"] = 1 / given[f"{module}.weight_global_scale"]
        for part in ("weight", "weight_scale", "weight_scale_2"):
            tensor = given[f"{module}.{part}"]
            place = tensors[parts[part].name]
            if tensor.numel() != place.numel() or tensor.dtype != place.dtype:
                raise SystemExit(f"{module}.{part}: {tensor.dtype} {tensor.shape}, wanted {place.dtype} {place.shape}")
            tensors[parts[part].name] = tensor.reshape(place.shape)
    out.mkdir()
    for name in ("config.json", "generation_config.json"):
        shutil.copy(template / name, out)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--windows", type=int, default=16)
    options.add_argument("--keep", type=Path)
    every = [f"{who}.{algorithm}" for who, algorithms in ALGORITHMS.items() for algorithm in algorithms]
    options.add_argument("--only", nargs="+", choices=every, default=every, metavar="WHO.ALGORITHM")
    chosen = options.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.model_max_length = int(1e9)
    tokens = windows(tokenizer)[: chosen.windows]
    plain = load(TINY)
    base = log_probabilities(plain, tokens)
    rows: list[dict[str, Any]] = []

    def measures(model: Any) -> dict[str, float]:
        logp = log_probabilities(model, tokens)
        agreement = (base.argmax(-1) == logp.argmax(-1)).float().mean().item()
        kl = divergence(base, logp).mean().item()
        return {"kl": kl, "perplexity": perplexity(logp, tokens), "top1_agreement": agreement}

    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        write_tokens(folder / "tokens.jsonl")
        rounded_by_us("max", folder)
        template = folder / "max"
        for name in chosen.only:
            who, algorithm = name.split(".")
            about: dict[str, Any] | None
            if who == "Halfbyte":
                about, checkpoint = rounded_by_us(algorithm, folder), folder / algorithm
            else:
                about = rounded_by(who, algorithm, folder)
                if about is None:
                    continue
                checkpoint = Path(temporary) / f"measured-{name}"
                transplant(folder / f"{who}-{algorithm}", template, checkpoint)
            load_decoded(plain, checkpoint)
            row = about | {"a16": measures(plain)}
            ours = load(checkpoint)
            runtime.use(ours, backend="dequant", activations="a4-sim")
            rows.append(row | {"a4-sim": measures(ours)})
            del ours
            print(rows[-1], flush=True)
    columns = ["", "algorithm", "KL, W4A16", "perplexity", "KL, W4A4", "perplexity", "seconds"]
    cells = [["BF16", "", "0", f"{perplexity(base, tokens):.3f}", "", "", ""]]
    for row in rows:
        figures = [f"{row[a][m]:.{digits}f}" for a in ("a16", "a4-sim") for m, digits in (("kl", 4), ("perplexity", 3))]
        cells.append([row["peer"], row["algorithm"], *figures, f"{row['seconds']:.0f}"])
    show(f"tiny-glm, routed experts in NVFP4, {len(tokens)} windows of 1,024 tokens", columns, cells)
    record(
        "rounding_peers",
        {
            "windows": len(tokens),
            "torch": torch.__version__,
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "perplexity": perplexity(base, tokens),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
