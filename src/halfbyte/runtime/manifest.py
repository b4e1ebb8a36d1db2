"""What the files hold against what the model wants, tensor by tensor, before a byte of weight is read.

transformers only warns about missing and unexpected tensors and fills the gaps with random numbers. Here every tensor
must be wanted, present and of the right shape and dtype, else loading stops with its name. Names are translated by
transformers' own conversions, so this follows whatever it does.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.formats.catalogue import NVFP4, QUANTIZED
from halfbyte.formats.dtypes import F8_E4M3, FLOATS, U8
from halfbyte.formats.torch_dtypes import TORCH_DTYPES
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import CACHE_SCALES, Role
from halfbyte.runtime.replace import is_quantized
from halfbyte.runtime.runtime import logger

PACKED = {TORCH_DTYPES[dtype]: dtype for dtype in (U8, F8_E4M3)}
"""torch dtypes of parameters that hold packed numbers -> how files spell them."""
LINEAR_LIKE = (Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP, Role.ATTENTION, Role.INDEXER, Role.LM_HEAD)


def check_files(model: Any, quantizer: Any, roles: RoleMap, exclusions: Sequence[str], checkpoint: Checkpoint) -> None:
    """Raise CheckpointError for the first tensor that is missing, extra, ill-shaped or quantized against the list."""
    _check_formats(roles, exclusions, checkpoint)
    _check_names(model, quantizer, roles, checkpoint)


def _check_formats(roles: RoleMap, exclusions: Sequence[str], checkpoint: Checkpoint) -> None:
    """Every linear is stored as the exclusion list says."""
    for entry in inventory(checkpoint.tensors, roles):
        if entry.format in QUANTIZED and entry.format != NVFP4:
            raise UnsupportedError(f"{entry.name}: stored as {entry.format}, halfbyte.runtime loads NVFP4 only")
        if (
            entry.role.mtp
            or "weight" not in entry.tensors
            or entry.role.role not in LINEAR_LIKE
            or len(entry.shape) < 2
        ):
            continue
        packed = entry.format == NVFP4
        if packed is not is_quantized(entry.role, exclusions):
            stored, listed = ("packed", "excluded") if packed else (entry.format, "not excluded")
            raise CheckpointError(
                f"{entry.name}: is stored {stored} but {listed} by quantization_config.ignore of config.json",
                hint="config.json does not belong to these weights, or was edited",
            )


def _check_names(model: Any, quantizer: Any, roles: RoleMap, checkpoint: Checkpoint) -> None:
    conversions = get_model_conversion_mapping(model, None, quantizer)
    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    wanted = model.state_dict()
    ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or ()]
    found: dict[str, set[tuple[str, int]]] = {}
    dropped = 0
    for tensor in checkpoint.tensors.values():
        if roles.is_buffer(tensor.name):
            continue
        role = roles.role(tensor.name)
        if role.mtp or role.part in CACHE_SCALES or any(entry.search(tensor.name) for entry in ignored):
            dropped += 1
            continue
        target, pattern = rename_source_key(tensor.name, renamings, converters, model.base_model_prefix, wanted)
        if target not in wanted:
            if role.role is Role.LM_HEAD:  # a base model has no head
                continue
            raise CheckpointError(
                f"{tensor.name}: the model has no such tensor", hint="config.json does not belong to these weights"
            )
        sources = len(by_pattern[pattern].source_patterns) if pattern is not None else 0
        _check_tensor(tensor, wanted[target], sources)
        found.setdefault(target, set()).add((pattern or "", role.expert or 0))
    if dropped:
        logger.warning(
            "%d tensor(s) of the checkpoint are left out: transformers builds no multi-token-prediction layers and no "
            "quantized cache; save_pretrained will not write them",
            dropped,
        )
    _check_complete(model, wanted, by_pattern, found)


def _check_tensor(tensor: Tensor, parameter: torch.Tensor, sources: int) -> None:
    """sources: how many projections a stack merges, 0 if the tensor is a parameter by itself."""
    shape = tuple(parameter.shape)
    if sources:
        shape = (shape[1] // sources, *shape[2:]) if len(shape) > 2 else ()  # of one expert and projection
    if tensor.shape != shape:
        raise CheckpointError(f"{tensor.name}: shape {list(tensor.shape)}, the model wants {list(shape)}")
    stored = PACKED.get(parameter.dtype)
    if stored is None and tensor.dtype not in FLOATS:
        raise CheckpointError(f"{tensor.name}: dtype {tensor.dtype}, wanted BF16, F16 or F32")
    if stored is not None and tensor.dtype != stored:
        raise CheckpointError(f"{tensor.name}: dtype {tensor.dtype}, wanted {stored}")


def _check_complete(
    model: Any, wanted: dict[str, torch.Tensor], by_pattern: dict[str, Any], found: dict[str, set[tuple[str, int]]]
) -> None:
    tied = set(model.all_tied_weights_keys)
    optional = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_missing or ()]
    for target, parameter in wanted.items():
        pieces = found.get(target)
        if pieces is None:
            if target in tied or any(entry.search(target) for entry in optional):
                continue
            raise CheckpointError(f"{target}: missing from the checkpoint", hint="complete the download")
        patterns = {pattern for pattern, _ in pieces} - {""}
        if patterns:
            converter = by_pattern[next(iter(patterns))]
            everything = {(pattern, e) for pattern in converter.source_patterns for e in range(parameter.shape[0])}
            lacking = sorted(everything - pieces, key=lambda item: (item[1], item[0]))
            if lacking:
                pattern, expert = lacking[0]
                raise CheckpointError(
                    f"{target}: {len(lacking)} expert tensor(s) are missing from the checkpoint, first "
                    f"{pattern.strip('.').replace('*', str(expert))}",
                    hint="complete the download",
                )
