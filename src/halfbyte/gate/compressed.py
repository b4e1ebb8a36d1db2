"""A checkpoint in compressed-tensors' layout, as the rules see it: linears under ModelOpt's part names, and the list of
what is not quantized, read by its own rules.

Entries of `ignore` are whole paths, or `re:` and a regular expression (vLLM 0.33 `should_ignore_layer`). What matches
them is hostile, so only expressions that cannot take long are tried.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from halfbyte.checkpoint.inventory import Alike, Entry
from halfbyte.formats.catalogue import NVFP4, NVFP4_COMPRESSED
from halfbyte.formats.nvfp4.compressed import FORM
from halfbyte.formats.nvfp4.layouts import TO_MODELOPT
from halfbyte.formats.quantization_block import COMPRESSED_TENSORS, QuantizationBlock

PATTERN = "re:"
LONGEST, MOST_REPEATS = 500, 3
_NESTED = re.compile(r"[{]|\)[*+?]")
"""Characters of an expression, and `*` and `+` in it: matching takes at most that power of a path's length."""


def is_compressed(block: dict[str, Any] | None) -> bool:
    """Whether config.json's block is compressed-tensors' for NVFP4."""
    return block is not None and block.get("quant_method") == COMPRESSED_TENSORS and block.get("format") == FORM


def as_modelopt(entry: Entry) -> Entry:
    """The same linear under ModelOpt's names; its second scales divide (`statistics` turns them over)."""
    if entry.format != NVFP4_COMPRESSED:
        return entry
    return entry._replace(format=NVFP4, tensors={TO_MODELOPT[part]: tensor for part, tensor in entry.tensors.items()})


def all_as_modelopt(found: list[Alike]) -> list[Alike]:
    return [some._replace(first=as_modelopt(some.first)) for some in found]


def metadata_faults(block: dict[str, Any]) -> Iterator[str]:
    """What is missing of what engines read."""
    read = QuantizationBlock(block)
    if not read.has_sound_groups or not read.groups:
        yield "has no config_groups that say what is quantized"
    if read.excluded is None:
        yield "has no list of strings under ignore"
    for key, weights in read.parts("weights"):
        if (weights.get("num_bits"), weights.get("type")) != (4, "float"):
            stated = str((weights.get("num_bits"), weights.get("type")))[:60]
            yield f"{key}: num_bits and type are {stated}, wanted (4, 'float')"


def misread(entries: Sequence[str], linears: Sequence[Entry]) -> Iterator[tuple[str, str | None]]:
    """(what the list says wrongly, the module). linears: as stored, one for those that are alike."""
    paths = {entry for entry in entries if not entry.startswith(PATTERN)}
    patterns = []
    for stated in entries:
        if stated.startswith(PATTERN):
            expression = stated.removeprefix(PATTERN)
            repeats = expression.count("*") + expression.count("+")
            if len(expression) > LONGEST or repeats > MOST_REPEATS or _NESTED.search(expression):
                yield f"the exclusion {stated[:100]!r} has too many repetitions or is too long", None
                return
            try:
                patterns.append(re.compile(expression))
            except re.error as error:
                yield f"the exclusion {stated[:100]!r} is no regular expression: {error}", None
                return
    for entry in linears:
        module = entry.role.module
        excluded = module in paths or any(pattern.match(module) for pattern in patterns)
        if excluded == (entry.format == NVFP4):
            stored = "packed" if entry.format == NVFP4 else f"stored as {entry.format}"
            yield f"{module} is {stored}, and ignore {'names' if excluded else 'does not name'} it", module
