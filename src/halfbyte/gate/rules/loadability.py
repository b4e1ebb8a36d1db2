"""Loadability: does each engine recognise the checkpoint, and read it as it was meant? The metadata and the tensors.

What each engine takes stands in `engines`, which the writer asks too.
"""

from collections.abc import Iterator
from typing import Any

from halfbyte.checkpoint.inventory import Alike, Entry
from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.mixture import misread_beside
from halfbyte.engines.packing import halves_apart, why_unpackable
from halfbyte.formats.catalogue import NVFP4, QUANTIZED
from halfbyte.formats.modelopt import HF_QUANT_CONFIG, MIXED
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.gate.compressed import metadata_faults
from halfbyte.gate.facts import Facts, is_linear, reported
from halfbyte.gate.findings import Found, plural, printable
from halfbyte.gate.quantization import NESTED_KEYS, misread_exclusions, wants_input_scales
from halfbyte.gate.registry import rule
from halfbyte.models.family import Mixture
from halfbyte.models.roles import Role

CONFIG = "config.json"


@rule(
    "loadability.metadata",
    "deny",
    "Engines recognise the format from `quantization_config` in config.json or from hf_quant_config.json; a block "
    "that is absent or lacks a key stops the load, or turns into online quantization of packed bytes.",
)
def metadata(facts: Facts) -> Iterator[Found]:
    yield from reported(facts, "loadability.metadata")
    flat, nested = facts.quantization, facts.nested_quantization
    if "quantization_config" in facts.config and flat is None:
        yield Found(f"{CONFIG}: quantization_config is no JSON object", file=CONFIG)
    if flat is None and nested is None:
        yield Found(f"neither {CONFIG} nor {HF_QUANT_CONFIG} says how the checkpoint is quantized", file=CONFIG)
    if facts.compressed and flat is not None:
        yield from (Found(f"{CONFIG}: quantization_config {fault}", file=CONFIG) for fault in metadata_faults(flat))
    elif flat is not None:
        method, wanted = flat.get("quant_method"), "modelopt" if facts.mixture is None else "fp8"
        if not isinstance(method, str) or not method.startswith(wanted):
            message = f"{CONFIG}: quant_method is {printable(str(method), 60)!r}, wanted {wanted}"
            yield Found(message, file=CONFIG)
        if not isinstance(flat.get("quant_algo"), str):
            yield Found(f"{CONFIG}: quantization_config has no quant_algo", file=CONFIG)
        if QuantizationBlock(flat).excluded is None and facts.algorithm != MIXED:
            yield Found(f"{CONFIG}: quantization_config has no list of strings under ignore", file=CONFIG)
    if facts.quant is not None and nested is None:
        yield Found(f"{HF_QUANT_CONFIG}: has no `quantization` object", file=HF_QUANT_CONFIG)
    if nested is not None:
        missing = [key for key in ("quant_algo", *NESTED_KEYS) if key not in nested]
        if missing and not (facts.algorithm == MIXED and missing == ["exclude_modules"]):
            message = f"{HF_QUANT_CONFIG}: lacks {', '.join(missing)}, which vLLM demands (null or not)"
            yield Found(message, file=HF_QUANT_CONFIG)


@rule(
    "loadability.both-blocks",
    "warn",
    "vLLM and SGLang look at config.json first, TensorRT-LLM at hf_quant_config.json: with both, all see the same.",
)
def both_blocks(facts: Facts) -> Iterator[Found]:
    if facts.quantization is None and facts.nested_quantization is not None:
        yield Found(f"{CONFIG} has no quantization_config; transformers would take it for unquantized", file=CONFIG)
    if facts.quantization is not None and facts.quant is None and not facts.compressed:
        yield Found(f"{HF_QUANT_CONFIG} is missing", file=HF_QUANT_CONFIG)


@rule("loadability.blocks-agree", "deny", "Two blocks that differ make two engines serve two different models.")
def blocks_agree(facts: Facts) -> Iterator[Found]:
    flat, nested = facts.quantization, facts.nested_quantization
    if flat is None or nested is None or facts.compressed:
        return
    if isinstance(flat.get("quant_algo"), str) and flat["quant_algo"] != nested.get("quant_algo"):
        ours, theirs = printable(flat["quant_algo"], 60), printable(str(nested.get("quant_algo")), 60)
        yield Found(f"{CONFIG} says {ours}, {HF_QUANT_CONFIG} {theirs}", file=HF_QUANT_CONFIG)
    ignored, excluded = QuantizationBlock(flat).excluded, QuantizationBlock(nested).excluded
    if ignored is not None and excluded is not None and set(ignored) != set(excluded):
        different = sorted(set(ignored) ^ set(excluded))
        message = (
            f"{CONFIG} and {HF_QUANT_CONFIG} list different exclusions: {plural(len(different), 'entry')}".replace(
                "entrys", "entries"
            )
            + f" in only one of them, first {printable(different[0], 100)!r}"
        )
        yield Found(message, file=HF_QUANT_CONFIG)
    scheme = flat.get("kv_cache_scheme")
    if (scheme is not None) != (nested.get("kv_cache_quant_algo") is not None):
        message = f"only one of {CONFIG} and {HF_QUANT_CONFIG} declares a quantized KV cache"
        yield Found(message, file=HF_QUANT_CONFIG, at_most="warn")


@rule("loadability.algorithm", "deny", "Each engine takes a short list of algorithm names, SGLang to the letter.")
def algorithm(facts: Facts) -> Iterator[Found]:
    name = facts.algorithm
    if name is None:
        return
    for engine in facts.engines:
        if not ENGINES[engine].knows_algorithm(name):
            known = ", ".join(sorted(ENGINES[engine].algorithms))
            yield Found(f"{engine}: algorithm {printable(name, 60)!r} is not known, wanted one of {known}", file=CONFIG)
    packed = bool(facts.packed)
    if packed and "FP4" not in name.upper() and name != MIXED:
        yield Found(f"the algorithm is {printable(name, 60)!r}, yet tensors are packed as NVFP4", file=CONFIG)
    kv = (facts.nested_quantization or {}).get("kv_cache_quant_algo")
    if kv not in (None, "FP8", "NVFP4"):
        yield Found(f"kv_cache_quant_algo is {printable(str(kv), 60)!r}, wanted null or FP8", file=HF_QUANT_CONFIG)


@rule("loadability.group-size", "deny", "Every NVFP4 kernel takes blocks of 16, and SGLang refuses two sizes at once.")
def group_size(facts: Facts) -> Iterator[Found]:
    for file, block in ((CONFIG, facts.quantization), (HF_QUANT_CONFIG, facts.nested_quantization)):
        stated = QuantizationBlock(block or {}).group_sizes("weights") if facts.algorithm != MIXED else ()
        for _, size in stated:
            if size not in (None, BLOCK_SIZE):
                yield Found(f"{file}: group_size {printable(str(size), 40)}, wanted {BLOCK_SIZE}", file=file)


@rule(
    "loadability.input-scale",
    "deny",
    "Under NVFP4 vLLM folds an absent `input_scale` in as uninitialised memory: NaN or zero, only for the prompts that "
    "hit that expert. SGLang fills in 1.0. Weight-only checkpoints must say W4A16_NVFP4.",
)
def input_scale(facts: Facts) -> Iterator[Found]:
    lacking = [some for some in facts.packed if "input_scale" not in some.first.tensors]
    number, all_packed = sum(some.entries for some in lacking), sum(some.entries for some in facts.packed)
    for engine in facts.engines:
        if wants_input_scales(facts, engine) and lacking:
            share, module = (
                f"{number:,} of {all_packed:,} packed linears have no input_scale",
                lacking[0].first.role.module,
            )
            yield Found(f"{engine}: {share}, first {module}", module=module)
            return


@rule(
    "loadability.weight-only",
    "deny",
    "`input_activations: null` makes vLLM serve NVFP4 as weight-only; SGLang looks at the algorithm's name alone.",
)
def weight_only(facts: Facts) -> Iterator[Found]:
    if len({wants_input_scales(facts, engine) for engine in facts.engines}) > 1:
        message = "config_groups have null input_activations but quant_algo is NVFP4: engines read it differently"
        yield Found(f"{message}; weight-only is spelled W4A16_NVFP4", file=CONFIG)


@rule(
    "loadability.exclusions",
    "deny",
    "The list of what is not quantized is matched by each engine in its own way: prefixes, globs, substrings, fused "
    "pairs. A module read otherwise than it is stored fails at load or is served as noise.",
)
def exclusions(facts: Facts) -> Iterator[Found]:
    for file, block in ((CONFIG, facts.quantization), (HF_QUANT_CONFIG, facts.nested_quantization)):
        entries = QuantizationBlock(block or {}).excluded
        if entries is None or facts.algorithm == MIXED or not facts.packed:
            continue
        found = list(misread_exclusions(facts, entries))
        yield from (Found(f"{file}: {message}", module=module) for message, module in found[:20])
        if found:
            return


@rule(
    "loadability.mixed-precision",
    "deny",
    "MIXED_PRECISION names every quantized module and its algorithm, exactly; under quant_method fp8 the experts that "
    "are NVFP4, and all else is stored as the family's classes read it.",
)
def mixed_precision(facts: Facts) -> Iterator[Found]:
    if facts.algorithm != MIXED:
        return
    block = facts.quantization or facts.nested_quantization or {}
    listed = block.get("quantized_layers")
    if not isinstance(listed, dict) or not listed:
        yield Found("MIXED_PRECISION without a quantized_layers table", file=CONFIG)
        return
    if facts.mixture is not None:
        yield from _beside_experts(facts, facts.mixture, listed)
        return
    for entry in facts.each_entry():
        if not is_linear(entry):
            continue
        module = entry.role.module
        setting = listed.get(module, listed.get(module.partition(".experts.")[0] + ".experts"))
        algo = str(setting.get("quant_algo", "")).upper() if isinstance(setting, dict) else ""
        stored = entry.format if entry.format in QUANTIZED else ""
        if ("FP4" in algo) != (stored == NVFP4) or (algo.startswith("FP8")) != stored.startswith("fp8"):
            message = f"{module} is stored as {entry.format}, quantized_layers says {printable(algo, 40) or 'nothing'}"
            yield Found(message, module=module)
            return


def _beside_experts(facts: Facts, mixture: Mixture, listed: dict[str, Any]) -> Iterator[Found]:
    for key, value in mixture.stated(facts.config).items():
        if facts.config[key] != value:
            yield Found(f"{CONFIG}: {key} is {printable(str(facts.config[key]), 40)}, wanted {value}", file=CONFIG)
    linears = [(some.first.role, some.first.format) for some in facts.linears]
    for module, what in misread_beside(mixture, linears):
        yield Found(what, module=module)
        return
    packed = {some.first.role.module.rsplit(".", 2)[0] for some in facts.packed}
    for module in sorted(packed ^ listed.keys()):
        stored, said = ("NVFP4", "nothing") if module in packed else ("no NVFP4", "that it is")
        yield Found(f"{printable(module, 100)} holds {stored}, quantized_layers says {said}", module=module)
        return


@rule(
    "loadability.packed-roles",
    "deny",
    "Latent attention's kv_b_proj is absorbed per head, the indexer fused in BF16, the router a plain parameter, head "
    "and embeddings looked up: no engine takes them packed, nor one of two linears that it fuses.",
)
def packed_roles(facts: Facts) -> Iterator[Found]:
    latent = facts.arch is not None and facts.arch.mla is not None
    packs = {} if facts.roles is None else facts.roles.family.packs
    found: dict[tuple[Role, str], list[Alike]] = {}
    for some in facts.packed:
        role = some.first.role
        if not role.mtp and (reason := why_unpackable(role.role, role.projection, latent, packs)) is not None:
            found.setdefault((role.role, reason), []).append(some)
    for (name, reason), packed in found.items():
        count, module = plural(sum(some.entries for some in packed), "tensor"), packed[0].first.role.module
        yield Found(f"{name}: {count} packed as NVFP4, which engines cannot load: {reason}", module=module)
    linears: dict[str, dict[str, Entry]] = {}
    for entry, *_ in facts.linears:
        role = entry.role
        if role.projection is not None and not role.mtp and role.role is not Role.ROUTED_EXPERT:
            linears.setdefault(role.module.rpartition(".")[0], {})[role.projection] = entry
    for owner, parts in linears.items():
        apart = halves_apart([name for name, entry in parts.items() if entry.format == NVFP4], parts)
        if apart is not None:
            message = f"{owner}: {apart[0]} is packed and {apart[1]} is not, yet engines fuse the two"
            yield Found(message, module=parts[apart[0]].role.module)
            return


@rule(
    "loadability.packed-mtp", "deny", "SGLang builds the MTP layer of modelopt_fp4 checkpoints unquantized: BF16 only."
)
def packed_mtp(facts: Facts) -> Iterator[Found]:
    packed = [some for some in facts.packed if some.first.role.mtp]
    count = sum(some.entries for some in packed)
    for engine in facts.engines:
        if packed and not ENGINES[engine].packs_mtp:
            message = f"{engine}: {plural(count, 'linear')} of the MTP layer packed as NVFP4"
            yield Found(message, module=packed[0].first.role.module)


@rule(
    "loadability.fused-experts",
    "deny",
    "Engines load experts one by one; a 3-D stack under NVFP4 has no loader but in a family whose classes have one.",
)
def fused_experts(facts: Facts) -> Iterator[Found]:
    for entry, *_ in facts.alike:
        stacked = facts.roles is not None and facts.roles.family.stacked
        if entry.role.fused and facts.algorithm is not None and not stacked:
            yield Found(
                f"{entry.name}: experts are stored as one stack, wanted one tensor per expert", tensor=entry.name
            )
            return
