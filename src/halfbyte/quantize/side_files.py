"""The files beside the weights: which are carried over, and config.json with its quantization block."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.files import walked
from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import CheckpointError
from halfbyte.evidence.names import DECISION, DOSSIER
from halfbyte.evidence.record import json_bytes
from halfbyte.formats.modelopt import (
    HF_QUANT_CONFIG,
    hf_quant_config,
    mixed_hf_quant_config,
    mixed_quantization_config,
    quantization_config,
)
from halfbyte.formats.quantization_block import CONFIG_KEY, QuantizationBlock
from halfbyte.quantize.job import Job, expert_modules
from halfbyte.quantize.journal import STAGING
from halfbyte.text import is_text, line

CARD = "README.md"
SOURCE_CARD = "README.source.md"
"""Where the source's own model card goes."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".partial")
_REPLACED = {"config.json", INDEX_NAME}
_ABOUT_THE_SOURCE = {HF_QUANT_CONFIG, DOSSIER, DECISION}
SHOWN_NAMES = 5


@dataclass(frozen=True)
class SideFiles:
    """files: output name, folders in it, -> source file of everything beside the weights that comes along. left_out:
    name -> why it does not."""

    files: dict[str, Path]
    left_out: dict[str, str]

    @property
    def warnings(self) -> list[str]:
        """One for each reason, naming what stays behind."""
        by_reason: dict[str, list[str]] = {}
        for name, why in self.left_out.items():
            by_reason.setdefault(why, []).append(line(name))
        return [f"not copied: {_names(names)} ({why})" for why, names in by_reason.items()]


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def side_files(source: Checkpoint) -> SideFiles:
    """Everything beside the weights, in folders too: tokenizer, templates, licence, the rest.

    Raises CheckpointError for files too large for a side file.
    """
    files: dict[str, Path] = {}
    left_out = dict(source.left_out)
    for hidden in sorted(os.listdir(source.folder)):
        if hidden.startswith(".") and hidden != STAGING:
            left_out[hidden] = "hidden"
    for info in walked(source.folder, hidden=False):
        name, path = info.name, source.folder / info.name
        if name in source.shards or name in _REPLACED or name in left_out:
            continue
        why = _why_not(name, path)
        if why is not None:
            left_out[name] = why
            continue
        size = path.stat().st_size
        if size > JSON_LIMIT_BYTES:
            raise CheckpointError(
                f"{path}: {size / 1e9:.1f} GB are too many for a side file", hint="move it out of the folder"
            )
        files[SOURCE_CARD if name == CARD else name] = path
    return SideFiles(dict(sorted(files.items())), left_out)


def _why_not(name: str, path: Path) -> str | None:
    if os.path.isdir(path):
        return "a link to a folder"
    if name in _ABOUT_THE_SOURCE:
        return "about the source's own bytes"
    if name.endswith((*_WEIGHTS, ".index.json")):
        return "weights in another form"
    if not is_text(name):
        return "its name is not UTF-8"
    if not name.isprintable():
        return "its name cannot be printed"
    return None


def without_quantization(config: dict[str, Any]) -> dict[str, Any]:
    """What a text model beside other towers says of its own format (Kimi K2.5 does) is not so any more."""
    inner = config.get("text_config")
    if not isinstance(inner, dict) or CONFIG_KEY not in inner:
        return config
    return config | {"text_config": {key: value for key, value in inner.items() if key != CONFIG_KEY}}


def metadata_files(config: dict[str, Any], job: Job) -> dict[str, bytes]:
    """config.json, hf_quant_config.json and the index of the output. All other config keys are kept, in order."""
    algorithm = job.recipe.algorithm
    index = {
        "metadata": {"total_size": sum(shard.bytes - len(shard.header) for shard in job.shards)},
        "weight_map": {name: shard.file for shard in job.shards for name in shard.offsets},
    }
    if job.mixture is None:
        block, said = quantization_config(algorithm, job.exclusions), {}
        nested = hf_quant_config(algorithm, job.exclusions)
    else:
        experts, stated = expert_modules(job.linears()), QuantizationBlock.of_config(config)
        block = mixed_quantization_config({} if stated is None else stated.stated, experts, job.exclusions)
        nested, said = mixed_hf_quant_config(experts, job.exclusions), job.mixture.stated(config)
    return {
        HF_QUANT_CONFIG: json_bytes(nested),
        INDEX_NAME: json_bytes(index),
        "config.json": json_bytes(without_quantization(config) | said | {CONFIG_KEY: block}),
    }
