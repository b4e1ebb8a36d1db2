"""What a conversion will write, decided from the headers: every tensor's new name, and how each layout describes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from halfbyte.checkpoint.header import serialize_header
from halfbyte.checkpoint.inventory import Entry, inventory
from halfbyte.checkpoint.json_file import object_of
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.convert.options import Layout
from halfbyte.disk import read_regular
from halfbyte.engines.exclusions import exclusion_entries, tied_head
from halfbyte.errors import CheckpointError, UnsupportedError, said
from halfbyte.formats import compressed_tensors, modelopt
from halfbyte.formats.catalogue import NVFP4
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.formats.nvfp4 import compressed, stored
from halfbyte.formats.nvfp4.layouts import INVERSE, SCALAR_SHAPES, TO_COMPRESSED, TO_MODELOPT, is_nvfp4
from halfbyte.models import roles_of
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import Role

KV_CACHE = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
"""What ModelOpt calls FP8, in compressed-tensors' words."""
LARGEST_CONFIG_BYTES = 100_000_000


@dataclass(frozen=True)
class Output:
    """A tensor to be written. inverse: it is a second scale. source: where its bytes, or its number, are."""

    name: str
    shape: tuple[int, ...]
    source: Tensor
    inverse: bool


@dataclass(frozen=True)
class Plan:
    """shards: file -> tensors in the order of their bytes. ignore: modules that are not quantized, for the layout.

    activations: whether linears round their inputs too. linears: how many are converted. kv_cache: described alike."""

    came_from: Layout
    layout: Layout
    roles: RoleMap
    shards: dict[str, list[Output]]
    ignore: list[str]
    activations: bool
    linears: int
    kv_cache: bool

    @property
    def algorithm(self) -> modelopt.Algorithm:
        return modelopt.WITH_ACTIVATIONS if self.activations else modelopt.WEIGHT_ONLY

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """config.json with the layout's own block; all else is kept, in order."""
        if self.layout == "modelopt":
            block = modelopt.quantization_config(self.algorithm, self.ignore)
        else:
            block = compressed_tensors.quantization_config(self.activations, self.ignore)
        if self.kv_cache:
            block["kv_cache_scheme"] = KV_CACHE
        return {**config, "quantization_config": block}

    def hf_quant_config(self) -> dict[str, Any] | None:
        if self.layout != "modelopt":
            return None
        document = modelopt.hf_quant_config(self.algorithm, self.ignore)
        if self.kv_cache:
            document["quantization"]["kv_cache_quant_algo"] = "FP8"
        return document


def planned(source: Checkpoint, layout: Layout) -> Plan:
    """Raises UnsupportedError for what is no NVFP4 checkpoint, or in the layout already; CheckpointError."""
    roles = roles_of(source.config)
    entries = inventory(source.tensors, roles)
    came_from = _layout(source, entries)
    if came_from == layout:
        raise UnsupportedError(f"{source.folder}: is in the layout {layout} already", hint="there is nothing to do")
    packed = [entry for entry in entries if is_nvfp4(entry.form)]
    for entry in packed:
        if entry.role.fused:
            raise UnsupportedError(
                f"{entry.name}: a stack of experts, which compressed-tensors has no layout for",
                hint="no engine is known to load these experts but as ModelOpt's stacks",
            )
    input_scale = stored.INPUT_SCALE if came_from == "modelopt" else compressed.INPUT_GLOBAL_SCALE
    scaled = [entry for entry in packed if input_scale in entry.tensors]
    if scaled and len(scaled) != len(packed):
        without = next(entry for entry in packed if input_scale not in entry.tensors)
        raise CheckpointError(
            f"{without.name}: has no {input_scale}, which {len(scaled):,} of {len(packed):,} linears have",
            hint="all of them round their inputs, or none",
        )
    return Plan(
        came_from,
        layout,
        roles,
        _shards(source, entries, TO_COMPRESSED if layout == "compressed-tensors" else TO_MODELOPT),
        _ignored(entries, roles, layout),
        bool(scaled),
        len(packed),
        _quantizes_cache(source),
    )


def header_of(tensors: list[Output]) -> tuple[bytes, dict[str, int], int]:
    """Header, absolute byte of every tensor's data, size of the file. Wide dtypes first, as safetensors itself does."""
    described = [(one.name, one.source.dtype, one.shape, one.source.bytes) for one in tensors]
    described.sort(key=lambda one: -DTYPE_BYTES[one[1]])
    header, offsets = serialize_header(described, {"format": "pt"}), {}
    position = len(header)
    for name, _, _, size in described:
        offsets[name] = position
        position += size
    return header, offsets, position


def _layout(source: Checkpoint, entries: list[Entry]) -> Layout:
    forms = {entry.format: entry.name for entry in entries if entry.form.quantized}
    others = [name for name in forms if name not in (stored.FORMAT.name, compressed.FORMAT.name)]
    if not forms or others:
        found = f"{forms[others[0]]} is {others[0]}" if others else "no weight is NVFP4"
        raise UnsupportedError(
            f"{source.folder}: {found}; only NVFP4 changes its layout", hint="`halfbyte quantize` makes it NVFP4"
        )
    if len(forms) > 1:
        raise UnsupportedError(f"{source.folder}: holds both layouts, first {' and '.join(sorted(forms.values()))}")
    return "modelopt" if NVFP4 in forms else "compressed-tensors"


def _shards(source: Checkpoint, entries: list[Entry], renamed: Mapping[str, str]) -> dict[str, list[Output]]:
    """Every tensor of the source in the shard that it is in."""
    parts = {
        tensor.name: (entry.role.module, part)
        for entry in entries
        if is_nvfp4(entry.form)
        for part, tensor in entry.tensors.items()
    }
    shards: dict[str, list[Output]] = {name: [] for name in source.shards}
    names: dict[str, str] = {}
    for name, tensor in source.tensors.items():
        module, part = parts.get(name, ("", ""))
        new = f"{module}.{renamed[part]}" if part else name
        if new in names:
            raise CheckpointError(f"{names[new]} and {name} would both be {new}")
        names[new] = name
        inverse = part in INVERSE
        shape = SCALAR_SHAPES[renamed[part]] if inverse else tensor.shape
        shards[tensor.shard].append(Output(new, shape, tensor, inverse))
    return {name: tensors for name, tensors in shards.items() if tensors}


def _ignored(entries: list[Entry], roles: RoleMap, layout: Layout) -> list[str]:
    """ModelOpt's entries may be patterns; compressed-tensors takes whole paths."""
    linears = [entry for entry in entries if len(entry.shape) == 2 and entry.role.role is not Role.NORM]
    kept = [entry.role.module for entry in linears if not is_nvfp4(entry.form)]
    head = tied_head(roles, kept)
    if head is not None:
        kept.append(head.module)
    if layout == "modelopt":
        return exclusion_entries(kept, [entry.role.module for entry in linears if is_nvfp4(entry.form)], roles)
    embeddings = {entry.role.module for entry in linears if entry.role.role is Role.EMBEDDING}
    return [module for module in kept if module not in embeddings]


def _quantizes_cache(source: Checkpoint) -> bool:
    """Whether the source says that its KV cache is FP8. Raises UnsupportedError for a cache quantized otherwise."""
    block = source.config.get("quantization_config")
    stated = block.get("kv_cache_scheme") if isinstance(block, dict) else None
    path = source.folder / modelopt.HF_QUANT_CONFIG
    algorithm = None
    if path.exists():
        nested = object_of(read_regular(path, LARGEST_CONFIG_BYTES), str(path)).get("quantization")
        algorithm = nested.get("kv_cache_quant_algo") if isinstance(nested, dict) else None
    eight = isinstance(stated, dict) and stated.get("num_bits") == 8 and stated.get("type") == "float"
    if (stated and not eight) or algorithm not in (None, "FP8"):
        raise UnsupportedError(
            f"{source.folder}: its cache is quantized as {str(algorithm or stated)[:80]}, wanted FP8 or none",
            hint=said("remove kv_cache_quant_algo and kv_cache_scheme to convert without it"),
        )
    return bool(stated or algorithm)
