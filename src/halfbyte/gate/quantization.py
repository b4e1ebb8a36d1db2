"""The quantization blocks as each engine reads them, held against what is stored."""

from collections.abc import Iterator, Sequence

from halfbyte.checkpoint.inventory import Entry
from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.engine import EngineName
from halfbyte.engines.exclusions import contradictions, looked_up, tied_head
from halfbyte.formats.catalogue import QUANTIZED
from halfbyte.formats.modelopt import MIXED
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.gate.compressed import misread
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import printable
from halfbyte.models.roles import Role, TensorRole

NESTED_KEYS = ("group_size", "kv_cache_quant_algo", "exclude_modules")
MOST_ENTRIES = 20_000
MOST_WILDCARDS = 3
"""Wildcards in one entry. ModelOpt writes one; many make a pattern that takes exponential time to match."""


def wants_input_scales(facts: Facts, engine: EngineName) -> bool:
    """Whether an engine quantizes activations with the checkpoint's `input_scale`."""
    block = QuantizationBlock(facts.quantization or {})
    return facts.mixture is not None or ENGINES[engine].quantizes_activations(facts.algorithm or "", block)


def misread_exclusions(facts: Facts, entries: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """(what an engine reads differently, the module), none if all engines asked for agree with the files."""
    if len(entries) > MOST_ENTRIES:
        yield f"{len(entries)} exclusions; more than {MOST_ENTRIES} are not a list that was meant", None
        return
    for entry in entries:
        if entry.count("*") > MOST_WILDCARDS or len(entry) > 500:
            yield f"the exclusion {printable(entry, 100)!r} has too many wildcards or is too long", None
            return
    if facts.compressed:
        yield from misread(
            entries, [some.first for some in facts.linears if some.first.role.role is not Role.EMBEDDING]
        )
        return
    assert facts.roles is not None, "tensors were explained"
    linears = _representatives([some.first for some in facts.linears])
    for name in facts.engines:
        asked = [item for item in linears if looked_up(ENGINES[name], item[0], facts.roles.family)]
        head = tied_head(facts.roles, (some.first.role.module for some in facts.linears))
        if head is not None and ENGINES[name].asks_tied_head:
            asked.append((head, False))
        into = facts.roles.family.experts_in
        for found in contradictions(entries, asked, [name], facts.roles.arch.gated_experts, into):
            yield str(found), found.module


def read_as_packed(facts: Facts, linears: Sequence[Entry]) -> bool:
    """Whether every engine asked for reads these linears as packed, by the lists of what is not."""
    if facts.compressed:
        entries = QuantizationBlock(facts.quantization or {}).excluded
        return entries is not None and not list(misread(entries, linears))
    asked = [(entry.role, True) for entry in linears]
    gated = facts.arch is None or facts.arch.gated_experts
    into = "" if facts.roles is None else facts.roles.family.experts_in
    for block in (facts.quantization, facts.nested_quantization):
        entries = QuantizationBlock(block or {}).excluded
        if block is None or facts.algorithm == MIXED:
            continue
        if entries is None or len(entries) > MOST_ENTRIES or contradictions(entries, asked, facts.engines, gated, into):
            return False
    return facts.algorithm is not None


def _representatives(linears: Sequence[Entry]) -> list[tuple[TensorRole, bool]]:
    """The linears and whether each is stored quantized; one of a layer's experts stands for those stored alike."""
    found: dict[tuple[object, ...], tuple[TensorRole, bool]] = {}
    for entry in linears:
        role, is_quantized = entry.role, entry.format in QUANTIZED
        expert = role.role is Role.ROUTED_EXPERT
        key = (role.layer, role.projection, is_quantized) if expert else (role.module,)
        found.setdefault(key, (role, is_quantized))
    return list(found.values())
