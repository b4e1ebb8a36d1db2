"""The job: from the source's headers and a recipe to every output tensor, shard by shard, before a weight is read.

All sizes follow from shapes, so the output's headers, index and metadata are known in advance, and a worker can write
any tensor straight to its final offset.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from halfbyte.checkpoint.inventory import Entry, inventory
from halfbyte.checkpoint.packed import packed_form
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.engines.exclusions import contradictions, exclusion_entries, listed_besides, tied_head
from halfbyte.engines.mixture import misread_beside
from halfbyte.engines.packing import TIED_HEAD
from halfbyte.errors import RecipeError, UnsupportedError, said
from halfbyte.formats.catalogue import F32, NVFP4, NVFP4_COMPRESSED
from halfbyte.formats.modelopt import WITH_ACTIVATIONS
from halfbyte.formats.storage import WEIGHT
from halfbyte.models import roles_of, text_config_of
from halfbyte.models.family import Mixture
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import Role
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.layout import OutputShard, lay_out
from halfbyte.quantize.linears import Kept, Linear, check_complete, check_quantizable, split
from halfbyte.quantize.units import units_of
from halfbyte.recipes.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """Everything decided. exclusions: the `ignore` list. warnings: what the user should know. mixture: beside which
    the experts are NVFP4, where what is kept stays as it is stored."""

    recipe: Recipe
    roles: RoleMap
    entries: list[Entry]
    shards: list[OutputShard]
    exclusions: list[str]
    warnings: list[str]
    mixture: Mixture | None = None

    @property
    def source_format(self) -> str:
        return source_format(self.entries)

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


def plan_job(
    source: Checkpoint, recipe: Recipe, max_shard_bytes: int, force: bool = False, keep_format: bool = False
) -> Job:
    """Decide everything. Raises CheckpointError, UnknownTensorError, UnsupportedError, RecipeError."""
    roles = roles_of(source.config)
    recipe.check_model(roles)
    problems = recipe.engine_problems(roles)
    if problems and not force:
        raise RecipeError(
            f"recipe {recipe.name}: engines cannot load it: {'; '.join(problems)}",
            hint=said("{force} writes it all the same"),
        )
    entries = inventory(source.tensors, roles)
    _refuse_quantized(source, entries)
    warnings = [f"forced: {problem}" for problem in problems] + _warnings(source, entries, roles)
    linears, kept = split(entries, roles)
    linears = [replace(linear, quantize=recipe.quantizes(linear.role, roles.layers)) for linear in linears]
    if not any(linear.quantize for linear in linears):
        raise RecipeError(f"recipe {recipe.name}: matches no tensor of this checkpoint", hint="see `halfbyte inspect`")
    check_complete(linears, roles)
    for linear in linears:
        if linear.quantize:
            check_quantizable(linear)
    mixture = _mixture(linears, roles, recipe, warnings, force) if keep_format else None
    if mixture is None:
        exclusions = _exclusions(linears, kept, roles, warnings, force)
    else:
        exclusions = mixture.not_nvfp4(expert_modules(linears))
    shards = lay_out(units_of(linears, kept, entries, mixture is not None), recipe.algorithm, max_shard_bytes)
    return Job(recipe, roles, entries, shards, exclusions, warnings, mixture)


def expert_modules(linears: Iterable[Linear]) -> list[str]:
    """What holds the routed experts that are quantized, a path for each layer: `layers.3.ffn.experts`."""
    paths = (linear.role.module.rsplit(".", 2)[0] for linear in linears if linear.quantize)
    return list(dict.fromkeys(path for path in paths if path.endswith(".experts")))


def check_covered(job: Job, scales: InputScales) -> None:
    """Fail before the work, not in the middle of it, if a linear has no input scale."""
    for shard in job.shards:
        for unit in shard.units:
            for group in unit.sharing():
                for linear in group:
                    scales.of(linear.role, tuple(member.role.module for member in group))


def source_format(entries: Iterable[Entry]) -> str:
    """What most of the source's numbers are stored as, for the evidence: `bf16`, `fp8-block`, `int4-group`, `mxfp4`.

    Any format of fewer bits counts before the plain ones: it is what the model was published in.
    """
    sums: dict[tuple[bool, str], int] = {}
    for entry in entries:
        form = entry.form
        key = form.quantized, form.kind or form.name
        sums[key] = sums.get(key, 0) + entry.parameters
    return max(sums, key=lambda key: (key[0], sums[key], key))[1]


def _refuse_quantized(source: Checkpoint, entries: list[Entry]) -> None:
    """Weights of fewer bits are decoded; not those that are what we write."""
    for entry in entries:
        if entry.format in (NVFP4, NVFP4_COMPRESSED):
            raise UnsupportedError(
                f"{source.folder}: already quantized: {entry.name} is {entry.format}",
                hint="quantize from the BF16 or FP8 checkpoint; `halfbyte convert` changes the layout of an NVFP4 one",
            )
    if source.config.get("quantization_config") and not any(entry.form.quantized for entry in entries):
        method = source.config["quantization_config"]
        method = method.get("quant_method") if isinstance(method, dict) else method
        raise UnsupportedError(
            f"{source.folder}: already quantized: config.json has a quantization_config ({str(method)[:40]})",
            hint="quantize from the BF16 checkpoint",
        )


def _warnings(source: Checkpoint, entries: list[Entry], roles: RoleMap) -> list[str]:
    found = []
    if any(entry.form.quantized for entry in entries):
        found.append(
            f"the source is {source_format(entries)}: its weights were rounded before, and the baseline of every "
            "comparison with it is already lossy"
        )
    buffers = roles.buffers(source.tensors)
    if buffers:
        found.append(f"left out: {len(buffers):,} tensor(s) that are buffers, no weights, first {buffers[0]}")
    if text_config_of(source.config).get("num_nextn_predict_layers") and not any(entry.role.mtp for entry in entries):
        found.append(
            "config.json announces an MTP layer but the checkpoint has none: engines that draft with it will draft "
            "garbage; set num_nextn_predict_layers to 0 or restore the layer"
        )
    if roles.arch.tied_embeddings and roles.wrapping.outer("lm_head.weight") in source.tensors:
        found.append(TIED_HEAD)
    for entry in entries:
        if roles.corrects(entry.role) and entry.format != F32 and roles.arch.shared_width:
            found.append(f"{entry.name} is {entry.format}: engines expect float32, rounding it reorders top-k")
            break
    return found


def _mixture(linears: list[Linear], roles: RoleMap, recipe: Recipe, warnings: list[str], force: bool) -> Mixture | None:
    """What engines load beside the NVFP4 experts, None where nothing of fewer bits is kept.

    Raises UnsupportedError where they do not load what the recipe would leave in the source's format.
    """
    packed = [packed_form(linear.source) for linear in linears if not linear.quantize]
    formats = {form.name for form in packed if form is not None}
    if not formats:
        return None
    mixture = roles.family.mixture
    if mixture is None:
        raise UnsupportedError(
            f"{' and '.join(sorted(formats))} beside NVFP4: no engine is known to load that mixture",
            hint=said("leave {keep_format} out: what the recipe keeps is written as BF16"),
        )
    found = [what for _, what in misread_beside(mixture, ((linear.role, _format(linear)) for linear in linears))]
    if recipe.algorithm != WITH_ACTIVATIONS:
        found.append(f"{recipe.algorithm}: engines know {WITH_ACTIVATIONS} alone for the experts of a mixture")
    if found and not force:
        raise UnsupportedError(
            f"recipe {recipe.name}: engines would misread what stays as it is stored: {'; '.join(found[:3])}",
            hint=said("leave {keep_format} out, or {force} writes it all the same"),
        )
    warnings += [f"forced: {what}" for what in found[:3]]
    return mixture


def _format(linear: Linear) -> str:
    if linear.quantize:
        return NVFP4
    form = packed_form(linear.source)
    return linear.source.dtype.lower() if form is None else form.name


def _exclusions(
    linears: list[Linear],
    kept: list[Kept],
    roles: RoleMap,
    warnings: list[str],
    force: bool,
) -> list[str]:
    """The ignore list, proved against both engines' matching rules.

    kept: of these the convolutions are listed too, as ModelOpt does, though engines build them unquantized.
    """
    quantized = [linear.role.module for linear in linears if linear.quantize]
    left = [linear.role.module for linear in linears if not linear.quantize]
    asked = [(linear.role, linear.quantize) for linear in linears if linear.role.role is not Role.EMBEDDING]
    convolutions = [role for role, _, tensor in kept if role.part == WEIGHT and role.projection and tensor.shape[1:]]
    left += [role.module for role in convolutions]
    asked += [(role, False) for role in convolutions]
    head = tied_head(roles, left + quantized)
    if head is not None:
        left.append(head.module)
        asked.append((head, False))
    left += listed_besides((linear.role for linear in linears if not linear.quantize), roles)
    exclusions = exclusion_entries(left, quantized, roles)
    problems = contradictions(exclusions, asked, gated=roles.arch.gated_experts, experts_in=roles.family.experts_in)
    if problems and not force:
        raise RecipeError(
            f"engines would misread the checkpoint: {'; '.join(map(str, problems[:3]))}",
            hint=said("{force} writes it all the same"),
        )
    warnings += [f"forced: {problem}" for problem in problems]
    return exclusions
