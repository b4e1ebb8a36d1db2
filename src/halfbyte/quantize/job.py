"""The job: from the source's headers and a recipe to every output tensor, shard by shard, before a weight is read.

All sizes follow from shapes, so the output's headers, index and metadata are known in advance, and a worker can write
any tensor straight to its final offset.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import prod

from halfbyte.checkpoint.exclusions import contradictions, exclusion_entries
from halfbyte.checkpoint.families import GLU, Role
from halfbyte.checkpoint.header import DTYPE_BYTES, serialize_header
from halfbyte.checkpoint.inventory import QUANTIZED, Entry, inventory
from halfbyte.checkpoint.modelopt import linear_tensors
from halfbyte.checkpoint.roles import SHARED_SCALE, RoleMap, TensorRole
from halfbyte.checkpoint.source import Checkpoint, Tensor
from halfbyte.errors import CheckpointError, RecipeError, UnsupportedError
from halfbyte.nvfp4.layout import BLOCK_SIZE
from halfbyte.quantize.recipe import Recipe

FLOAT_DTYPES = ("BF16", "F16", "F32")


@dataclass(frozen=True, slots=True)
class Linear:
    """One weight matrix on its way: what it is, where it lies in the source (maybe part of a stack), what it becomes.

    role.module is the path in the output.
    """

    role: TensorRole
    source: Tensor
    quantize: bool


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest piece of work: linears that must be seen together (an expert's three), or one kept tensor.

    linears: empty for a kept tensor. kept: (output name, source) of tensors copied byte for byte.
    """

    linears: tuple[Linear, ...]
    kept: tuple[tuple[str, Tensor], ...]

    @property
    def source_bytes(self) -> int:
        return sum(linear.source.bytes for linear in self.linears) + sum(tensor.bytes for _, tensor in self.kept)

    def sharing(self) -> list[tuple[Linear, ...]]:
        """The linears in groups that share one `weight_scale_2` (and one input)."""
        return sharing(self.linears)


def sharing(linears: Iterable[Linear]) -> list[tuple[Linear, ...]]:
    """Linears that belong together (`unit_key`), in groups that share one `weight_scale_2`."""
    groups: dict[object, list[Linear]] = {}
    for linear in linears:
        names = next((names for names in SHARED_SCALE if linear.role.projection in names), None)
        groups.setdefault(names or linear.role.module, []).append(linear)
    return [tuple(group) for group in groups.values()]


@dataclass(slots=True)
class OutputShard:
    """One file of the output. offsets: absolute byte of every tensor's data. header: the bytes before the data."""

    file: str
    units: list[Unit]
    header: bytes = b""
    offsets: dict[str, int] = field(default_factory=dict)
    bytes: int = 0


@dataclass(frozen=True)
class Job:
    """Everything decided. exclusions: the `ignore` list. warnings: what the user should know."""

    recipe: Recipe
    roles: RoleMap
    entries: list[Entry]
    shards: list[OutputShard]
    exclusions: list[str]
    warnings: list[str]

    @property
    def source_bytes(self) -> int:
        return sum(unit.source_bytes for shard in self.shards for unit in shard.units)

    @property
    def output_bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    def linears(self) -> Iterable[Linear]:
        for shard in self.shards:
            for unit in shard.units:
                yield from unit.linears


def plan_job(source: Checkpoint, recipe: Recipe, max_shard_bytes: int, force: bool = False) -> Job:
    """Decide everything. Raises CheckpointError, UnknownTensorError, UnsupportedError, RecipeError."""
    roles = RoleMap(source.config)
    recipe.check_layers(roles)
    problems = recipe.engine_problems(roles)
    if problems and not force:
        raise RecipeError(
            f"recipe {recipe.name}: engines cannot load it: {'; '.join(problems)}",
            hint="--force writes it all the same",
        )
    entries = inventory(source.tensors.values(), roles)
    _refuse_quantized(source, entries)
    warnings = [f"forced: {problem}" for problem in problems] + _warnings(entries, roles, source.config)
    linears, kept = split(entries, roles)
    linears = [replace(linear, quantize=recipe.quantizes(linear.role, roles.layers)) for linear in linears]
    if not any(linear.quantize for linear in linears):
        raise RecipeError(f"recipe {recipe.name}: matches no tensor of this checkpoint", hint="see `halfbyte inspect`")
    _check_complete(linears, roles)
    for linear in linears:
        if linear.quantize:
            _check_quantizable(linear)
    exclusions = _exclusions(linears, kept, roles, warnings, force)
    shards = _shards(_units(linears, kept, entries), recipe, max_shard_bytes)
    return Job(recipe, roles, entries, shards, exclusions, warnings)


def _refuse_quantized(source: Checkpoint, entries: list[Entry]) -> None:
    for entry in entries:
        if entry.format in QUANTIZED:
            raise UnsupportedError(
                f"{source.folder}: already quantized: {entry.name} is {entry.format}",
                hint="quantize from the BF16 checkpoint",
            )
    if source.config.get("quantization_config"):
        method = source.config["quantization_config"]
        method = method.get("quant_method") if isinstance(method, dict) else method
        raise UnsupportedError(
            f"{source.folder}: already quantized: config.json has a quantization_config ({str(method)[:40]})",
            hint="quantize from the BF16 checkpoint",
        )


def _warnings(entries: list[Entry], roles: RoleMap, config: dict[str, object]) -> list[str]:
    found = []
    if config.get("num_nextn_predict_layers") and not any(entry.role.mtp for entry in entries):
        found.append(
            "config.json announces an MTP layer but the checkpoint has none: engines that draft with it will draft "
            "garbage; set num_nextn_predict_layers to 0 or restore the layer"
        )
    for entry in entries:
        if entry.role.part == "e_score_correction_bias" and entry.format != "f32" and roles.family.shared_expert:
            found.append(f"{entry.name} is {entry.format}: engines expect float32, rounding it reorders top-k")
            break
    return found


def split(entries: list[Entry], roles: RoleMap) -> tuple[list[Linear], list[tuple[TensorRole, str, Tensor]]]:
    """All weight matrices as linears (stacks cut into experts), everything else as kept tensors, under output names."""
    linears: list[Linear] = []
    kept: list[tuple[TensorRole, str, Tensor]] = []
    for entry in entries:
        if entry.role.fused:
            linears += _unstacked(entry, roles)
        elif entry.role.part == "weight" and len(entry.shape) == 2:
            role = replace(entry.role, module=roles.published(entry.role.module))
            linears.append(Linear(role, entry.tensors["weight"], False))
        else:
            tensor = next(iter(entry.tensors.values()))
            kept.append((entry.role, roles.published(tensor.name), tensor))
    return linears, kept


def _unstacked(entry: Entry, roles: RoleMap) -> list[Linear]:
    """The expert matrices of a 3-D stack: gate_up_proj [E, 2I, H] (gate rows first) or down_proj [E, H, I]."""
    tensor = entry.tensors["weight"]
    stack, halves = entry.role.projection, 2 if entry.role.projection == "gate_up_proj" else 1
    if len(tensor.shape) != 3 or tensor.shape[0] != roles.num_experts or tensor.shape[1] % halves:
        raise CheckpointError(
            f"{tensor.name}: shape {list(tensor.shape)}, wanted [{roles.num_experts}, "
            + ("2 * width, hidden]" if halves == 2 else "hidden, width]")
        )
    rows, columns = tensor.shape[1] // halves, tensor.shape[2]
    layer = entry.role.layer
    assert layer is not None
    linears = []
    for expert in range(roles.num_experts):
        for half, projection in enumerate(("gate_proj", "up_proj") if stack == "gate_up_proj" else ("down_proj",)):
            module = roles.expert_module(layer, expert, projection)
            role = replace(entry.role, module=module, expert=expert, projection=projection, fused=False)
            part = tensor.part((expert * halves + half) * rows * columns, (rows, columns))
            linears.append(Linear(role, part, False))
    return linears


def _check_complete(linears: list[Linear], roles: RoleMap) -> None:
    """Every decoder layer present; every expert of a layer with all three projections, and of one shape."""
    layers: set[int] = set()
    experts: dict[tuple[int, str], dict[int, Linear]] = {}
    for linear in linears:
        role = linear.role
        if role.layer is not None:
            layers.add(role.layer)
        if role.expert is not None and role.layer is not None and role.projection is not None:
            found = experts.setdefault((role.layer, role.projection), {})
            if role.expert in found:
                raise CheckpointError(
                    f"{role.module} is given twice: {found[role.expert].source.name} and {linear.source.name}"
                )
            found[role.expert] = linear
    for layer in range(roles.layers + roles.mtp_layers):
        if layer not in layers:
            if layer < roles.layers:
                raise CheckpointError(f"model.layers.{layer} is missing", hint="complete the download")
            continue
        for projection in GLU if roles.is_moe(layer) else ():
            found = experts.get((layer, projection), {})
            for expert in range(roles.num_experts):
                if expert not in found:
                    module = roles.expert_module(layer, expert, projection)
                    raise CheckpointError(f"{module}.weight is missing", hint="complete the download")
                if found[expert].source.shape != found[0].source.shape:
                    raise CheckpointError(
                        f"{found[expert].source.name}: shape {list(found[expert].source.shape)}, the layer's other "
                        f"experts have {list(found[0].source.shape)}"
                    )


def _check_quantizable(linear: Linear) -> None:
    shape, dtype = linear.source.shape, linear.source.dtype
    if dtype not in FLOAT_DTYPES:
        raise UnsupportedError(
            f"{linear.source.name}: {dtype} cannot be quantized", hint=f"wanted {', '.join(FLOAT_DTYPES)}"
        )
    if shape[1] % BLOCK_SIZE or not prod(shape):
        raise UnsupportedError(
            f"{linear.source.name}: shape {list(shape)} cannot be NVFP4: rows must be a multiple of {BLOCK_SIZE} long",
            hint="keep this role or layer by the recipe",
        )


def _exclusions(
    linears: list[Linear],
    kept: list[tuple[TensorRole, str, Tensor]],
    roles: RoleMap,
    warnings: list[str],
    force: bool,
) -> list[str]:
    """The ignore list, proved against both engines' matching rules."""
    quantized = [linear.role.module for linear in linears if linear.quantize]
    left = [linear.role.module for linear in linears if not linear.quantize]
    exclusions = exclusion_entries(left, quantized, roles)
    asked = [(linear.role, linear.quantize) for linear in linears if linear.role.role is not Role.EMBEDDING]
    problems = contradictions(exclusions, asked)
    if problems and not force:
        raise RecipeError(
            f"engines would misread the checkpoint: {'; '.join(problems[:3])}", hint="--force writes it all the same"
        )
    warnings += [f"forced: {problem}" for problem in problems]
    return exclusions


def _units(linears: list[Linear], kept: list[tuple[TensorRole, str, Tensor]], entries: list[Entry]) -> list[Unit]:
    """Units in the order in which the source has them, so that it is read front to back."""
    order = {entry.name: position for position, entry in enumerate(entries)}
    grouped: dict[tuple[object, ...], list[Linear]] = {}
    units: list[tuple[int, Unit]] = []
    for linear in linears:
        if linear.quantize:
            grouped.setdefault(unit_key(linear.role), []).append(linear)
        else:
            name = f"{linear.role.module}.weight"
            units.append((order[linear.source.name], Unit((), ((name, linear.source),))))
    for members in grouped.values():
        members.sort(key=lambda linear: GLU.index(p) if (p := linear.role.projection) in GLU else 0)
        units.append((min(order[linear.source.name] for linear in members), Unit(tuple(members), ())))
    for _, name, tensor in kept:
        units.append((order[tensor.name], Unit((), ((name, tensor),))))
    return [unit for _, unit in sorted(units, key=lambda item: item[0])]


def unit_key(role: TensorRole) -> tuple[object, ...]:
    """Linears with equal keys are quantized together."""
    parent = role.module.rpartition(".")[0]
    if role.projection in GLU:
        return (parent,)
    for names in SHARED_SCALE:
        if role.projection in names:
            return (parent, names)
    return (role.module,)


def _shards(units: list[Unit], recipe: Recipe, max_shard_bytes: int) -> list[OutputShard]:
    """Fill shards in order; one unit never spans two. Names carry the final count."""
    packed: list[list[Unit]] = [[]]
    filled = 0
    for unit in units:
        size = sum(tensor[3] for tensor in _tensors_of(unit, recipe))
        if packed[-1] and filled + size > max_shard_bytes:
            packed.append([])
            filled = 0
        packed[-1].append(unit)
        filled += size
    names = [f"model-{i + 1:05d}-of-{len(packed):05d}.safetensors" for i in range(len(packed))]
    return [_laid_out(OutputShard(name, group), recipe) for name, group in zip(names, packed, strict=True)]


def _laid_out(shard: OutputShard, recipe: Recipe) -> OutputShard:
    """Give every tensor its offset: wide dtypes first, as safetensors itself does, so that all data is aligned."""
    tensors = [tensor for unit in shard.units for tensor in _tensors_of(unit, recipe)]
    tensors.sort(key=lambda tensor: -DTYPE_BYTES[tensor[1]])
    shard.header = serialize_header(tensors, {"format": "pt"})
    position = len(shard.header)
    for name, _, _, size in tensors:
        shard.offsets[name] = position
        position += size
    shard.bytes = position
    return shard


def _tensors_of(unit: Unit, recipe: Recipe) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Name, dtype, shape, bytes of all output tensors of a unit."""
    tensors = [(name, tensor.dtype, tensor.shape, tensor.bytes) for name, tensor in unit.kept]
    for linear in unit.linears:
        tensors += linear_tensors(linear.role.module, linear.source.shape, recipe.algorithm)
    return tensors
