"""The files beside the weights: which are carried over, and config.json with its quantization block."""

from pathlib import Path
from typing import Any

from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.errors import CheckpointError
from halfbyte.evidence.names import DECISION, DOSSIER
from halfbyte.evidence.record import json_bytes
from halfbyte.formats.modelopt import HF_QUANT_CONFIG, hf_quant_config, quantization_config
from halfbyte.quantize.job import Job

CARD = "README.md"
SOURCE_CARD = "README.source.md"
"""Where the source's own model card goes."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".partial")
_REPLACED = {"config.json", INDEX_NAME, HF_QUANT_CONFIG, DOSSIER, DECISION}


def carried(folder: Path) -> dict[str, Path]:
    """Output name -> file of everything beside the weights that comes along: tokenizer, template, licence, the rest.

    Not weights in any format, not hidden files, not subfolders; files too large for a side file are refused.
    """
    files = {}
    for path in sorted(folder.iterdir()):
        name = path.name
        if name.startswith(".") or name in _REPLACED or name.endswith((*_WEIGHTS, ".index.json")) or not path.is_file():
            continue
        if path.stat().st_size > JSON_LIMIT_BYTES:
            raise CheckpointError(
                f"{path}: {path.stat().st_size / 1e9:.1f} GB are too many for a side file",
                hint="move it out of the folder",
            )
        files[SOURCE_CARD if name == CARD else name] = path
    return files


def metadata_files(config: dict[str, Any], job: Job) -> dict[str, bytes]:
    """config.json, hf_quant_config.json and the index of the output. All other config keys are kept, in order."""
    algorithm = job.recipe.algorithm
    index = {
        "metadata": {"total_size": sum(shard.bytes - len(shard.header) for shard in job.shards)},
        "weight_map": {name: shard.file for shard in job.shards for name in shard.offsets},
    }
    quantized = config | {"quantization_config": quantization_config(algorithm, job.exclusions)}
    return {
        HF_QUANT_CONFIG: json_bytes(hf_quant_config(algorithm, job.exclusions)),
        INDEX_NAME: json_bytes(index),
        "config.json": json_bytes(quantized),
    }
