"""The quantization blocks as each engine reads them, held against what is stored."""

from collections.abc import Iterator, Sequence

from halfbyte.checkpoint.inventory import Entry
from halfbyte.engines.exclusions import Engine, contradictions
from halfbyte.formats.catalogue import QUANTIZED
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import printable
from halfbyte.models.families import Role
from halfbyte.models.roles import TensorRole

MIXED = "MIXED_PRECISION"
NESTED_KEYS = ("group_size", "kv_cache_quant_algo", "exclude_modules")
ALGORITHMS: dict[Engine, frozenset[str]] = {
    "vllm": frozenset(("NVFP4", "W4A16_NVFP4", "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "MXFP8", MIXED)),
    "sglang": frozenset(("NVFP4", "NVFP4_AWQ", "W4A16_NVFP4", "FP8", MIXED)),
}
MOST_ENTRIES = 20_000
MOST_WILDCARDS = 3
"""Wildcards in one entry. ModelOpt writes one; many make a pattern that takes exponential time to match."""

_NEVER_ASKED = {Role.ROUTER, Role.EMBEDDING, Role.NORM, Role.MTP}
"""Roles that engines build without a quantization config, listed or not: NVIDIA's own list omits the router."""

_INDEXER_PLAIN = ("wk", "weights_proj")


def wants_input_scales(facts: Facts, engine: Engine) -> bool:
    """Whether an engine quantizes activations with the checkpoint's `input_scale`."""
    name = (facts.algorithm or "").upper()
    if name not in ("NVFP4", "NVFP4_AWQ"):
        return False
    block = QuantizationBlock(facts.quantization or {})
    return engine != "vllm" or block.quantizes_activations(if_absent=True)


def misread_exclusions(facts: Facts, entries: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """(what an engine reads differently, the module), none if all engines asked for agree with the files."""
    if len(entries) > MOST_ENTRIES:
        yield f"{len(entries)} exclusions; more than {MOST_ENTRIES} are not a list that was meant", None
        return
    for entry in entries:
        if entry.count("*") > MOST_WILDCARDS or len(entry) > 500:
            yield f"the exclusion {printable(entry, 100)!r} has too many wildcards or is too long", None
            return
    modules = _asked(facts.linears)
    prefixes = tuple(f"{engine}: " for engine in facts.engines)
    if not [line for line in contradictions(entries, modules) if line.startswith(prefixes)]:
        return
    blamed: set[str] = set()
    for role, is_quantized in modules:
        for line in contradictions(entries, [(role, is_quantized)]):
            if line.startswith(prefixes) and not (role.mtp and line.startswith("sglang: ")) and line not in blamed:
                blamed.add(line)
                yield line, role.module
    for line in contradictions(entries, modules):
        if line.startswith(prefixes) and "shared_expert'" in line:
            yield line, None


def _asked(linears: Sequence[Entry]) -> list[tuple[TensorRole, bool]]:
    """The linears that engines look up in the list, one representative of a layer's experts."""
    found: dict[tuple[object, ...], tuple[TensorRole, bool]] = {}
    for entry in linears:
        role, is_quantized = entry.role, entry.format in QUANTIZED
        if role.role in _NEVER_ASKED or (role.role is Role.INDEXER and role.projection in _INDEXER_PLAIN):
            continue
        expert = role.role is Role.ROUTED_EXPERT
        key = (role.layer, role.projection, is_quantized) if expert else (role.module,)
        found.setdefault(key, (role, is_quantized))
    return list(found.values())
