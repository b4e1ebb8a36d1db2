"""Which ModelOpt format a checkpoint declares, and whether it is one that GGUF can hold."""

from halfbyte.checkpoint.json_file import read_json
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.disk import is_missing
from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.formats.catalogue import MXFP4
from halfbyte.formats.modelopt import ALGORITHMS, HF_QUANT_CONFIG, Algorithm
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.quantization_block import MODELOPT, NESTED_KEY, QuantizationBlock


def algorithm_of(checkpoint: Checkpoint) -> Algorithm | None:
    """ModelOpt's quant_algo, None for a checkpoint that is unquantized, or whose experts are in MXFP4.

    Raises UnsupportedError for another method, algorithm or block size, CheckpointError if the two files that
    declare it disagree, or what they declare is no object.
    """
    blocks = _blocks(checkpoint)
    if not blocks:
        return None
    config = blocks.get("config.json")
    if config is not None and config.method == MXFP4:
        return None  # stacks as llama.cpp has them too; what else is in fewer bits is refused where it is found
    if config is not None and not str(method := config.stated.get("quant_method", MODELOPT)).startswith(MODELOPT):
        raise UnsupportedError(
            f"config.json: quant_method {method!r} cannot be exported losslessly",
            hint="export takes ModelOpt NVFP4 checkpoints and unquantized ones",
        )
    declared, *others = [block.algorithm for block in blocks.values()]
    if any(other != declared for other in others):
        raise CheckpointError(
            f"config.json says quant_algo {declared!r}, {HF_QUANT_CONFIG} says {others[0]!r}",
        )
    algorithm = next((known for known in ALGORITHMS if known == declared), None)
    if algorithm is None:
        raise UnsupportedError(
            f"quant_algo {declared!r} cannot be exported to GGUF", hint=f"known: {', '.join(ALGORITHMS)}"
        )
    for block in blocks.values():
        for _, size in block.group_sizes("weights"):
            if size not in (None, BLOCK_SIZE):
                raise UnsupportedError(f"group size {size}: GGUF's NVFP4 has blocks of {BLOCK_SIZE}")
    return algorithm


def _blocks(checkpoint: Checkpoint) -> dict[str, QuantizationBlock]:
    """File -> the block it states, of the files that state one."""
    found = {"config.json": QuantizationBlock.of_config(checkpoint.config)}
    path = checkpoint.folder / HF_QUANT_CONFIG
    nested = None if is_missing(path) else read_json(path).get(NESTED_KEY)
    if nested:
        if not isinstance(nested, dict):
            raise CheckpointError(f"{path}: {NESTED_KEY} is {str(nested)[:80]!r}, wanted an object")
        found[HF_QUANT_CONFIG] = QuantizationBlock(nested)
    return {file: block for file, block in found.items() if block is not None}
