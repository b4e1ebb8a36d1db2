"""Which ModelOpt format a checkpoint declares, and whether it is one that GGUF can hold."""

from typing import Any

from halfbyte.checkpoint.source import Checkpoint, read_json
from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE

WEIGHT_ONLY = "W4A16_NVFP4"
ALGORITHMS = ("NVFP4", WEIGHT_ONLY)
HF_QUANT_CONFIG = "hf_quant_config.json"


def algorithm_of(checkpoint: Checkpoint) -> str | None:
    """ModelOpt's quant_algo, None for an unquantized checkpoint.

    Raises UnsupportedError for another method, algorithm or block size, CheckpointError if the two files that
    declare it disagree.
    """
    flat: dict[str, Any] = checkpoint.config.get("quantization_config") or {}
    path = checkpoint.folder / HF_QUANT_CONFIG
    nested: dict[str, Any] = (read_json(path).get("quantization") or {}) if path.is_file() else {}
    if not flat and not nested:
        return None
    method = flat.get("quant_method", "modelopt")
    if not str(method).startswith("modelopt"):
        raise UnsupportedError(
            f"config.json: quant_method {method!r} cannot be exported losslessly",
            hint="export takes ModelOpt NVFP4 checkpoints and unquantized ones",
        )
    declared = {source.get("quant_algo") for source in (flat, nested) if source}
    if len(declared) > 1:
        raise CheckpointError(
            f"config.json says quant_algo {flat.get('quant_algo')!r}, {HF_QUANT_CONFIG} says "
            f"{nested.get('quant_algo')!r}"
        )
    (algorithm,) = declared
    if algorithm not in ALGORITHMS:
        raise UnsupportedError(
            f"quant_algo {algorithm!r} cannot be exported to GGUF", hint=f"known: {', '.join(ALGORITHMS)}"
        )
    groups = [group.get("weights") or {} for group in (flat.get("config_groups") or {}).values()]
    for size in [part.get("group_size") for part in (flat, nested, *groups)]:
        if size not in (None, BLOCK_SIZE):
            raise UnsupportedError(f"group size {size}: GGUF's NVFP4 has blocks of {BLOCK_SIZE}")
    return str(algorithm)
