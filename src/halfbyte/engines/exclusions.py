"""The `ignore` / `exclude_modules` list: written so that every engine reads it alike, and read as each engine does.

The list names what is *not* quantized. vLLM and SGLang match it by different rules (below), with traps: a bare
`model.layers.7` also excludes layers 70 to 79 in vLLM, one half of a fused pair raises, a pattern without
`shared_expert` makes SGLang fuse a BF16 shared expert into packed ones. `exclusion_entries` writes layer-anchored
entries that avoid them; `contradictions` proves it for a given set of modules, and is what writer and gate both ask.

Rules read in vLLM 0.33 (`ModelOptQuantConfigBase.is_layer_excluded`, `apply_vllm_mapper`, `is_layer_skipped`) and
SGLang 0.5.23 (`ModelOptQuantConfig.is_layer_excluded`, `_get_quant_method`, `quantization/utils.is_layer_skipped`).
"""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal

from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import Role, TensorRole

Engine = Literal["vllm", "sglang"]
ENGINES: tuple[Engine, ...] = ("vllm", "sglang")

FUSED: dict[str, tuple[str, ...]] = {
    "gate_up_proj": ("gate_proj", "up_proj"),
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
    "fused_qkv_a_proj_with_mqa": ("q_a_proj", "kv_a_proj_with_mqa"),
}
"""Runtime modules that hold several linears of the checkpoint."""

_RUNTIME_NAMES: dict[Engine, dict[str, str]] = {
    "vllm": {"q_a_proj": "fused_qkv_a_proj", "kv_a_proj_with_mqa": "fused_qkv_a_proj"},
    "sglang": {"q_a_proj": "fused_qkv_a_proj_with_mqa", "kv_a_proj_with_mqa": "fused_qkv_a_proj_with_mqa"},
}
_SGLANG_MLA_PARTS = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")


class SplitFusedError(ValueError):
    """An engine's "Detected some but not all shards of ... are quantized"."""


def exclusion_entries(kept: Iterable[str], quantized: Iterable[str], roles: RoleMap) -> list[str]:
    """The list to write.

    kept: paths of all linear-like modules left unquantized (experts per expert). quantized: paths of the others.
    A subtree with nothing quantized becomes one entry: a whole layer `model.layers.N.*` (the dot matters), an MTP
    layer `model.layers.N*` as ModelOpt and NVIDIA spell it (safe: no layer comes after it), a submodule
    `path*`, a single linear by its name. Sorted by layer.
    """
    above_quantized: set[str] = set()
    for module in quantized:
        while module and module not in above_quantized:
            above_quantized.add(module)
            module = module.rpartition(".")[0]
    entries: set[str] = set()
    for module in kept:
        if module in above_quantized:
            continue
        top = module  # the highest ancestor with nothing quantized below, but never above a layer
        parent = top.rpartition(".")[0]
        while parent and parent not in above_quantized and not _is_container_of_layers(parent):
            top, parent = parent, parent.rpartition(".")[0]
        entries.add(_entry(top, module, roles))
    return sorted(entries, key=_natural)


def _is_container_of_layers(path: str) -> bool:
    return path in ("model", "model.layers")


def _entry(top: str, module: str, roles: RoleMap) -> str:
    if top == module:
        return module
    pieces = top.split(".")
    if len(pieces) == 3 and pieces[1] == "layers":
        return f"{top}*" if roles.is_mtp(int(pieces[2])) else f"{top}.*"
    return f"{top}*"


def excluded(engine: Engine, entries: Sequence[str], module: str) -> bool:
    """Whether `engine` would leave the runtime module `module` unquantized. Raises SplitFusedError where it raises.

    module: a runtime path: fused linears by their fused name, all experts of a layer as `...mlp.experts`.
    """
    return _vllm_excluded(tuple(entries), module) if engine == "vllm" else _sglang_excluded(tuple(entries), module)


def _vllm_excluded(entries: tuple[str, ...], module: str) -> bool:
    split = _vllm_split(entries)
    parent, _, last = module.rpartition(".")
    if last in FUSED:
        if _all_or_none(f"{parent}.{shard}" in split.exact for shard in FUSED[last]) or module in split.exact:
            return True
    elif "experts" in module:
        if any(module in entry for entry in split.expert_entries):
            return True
    elif module in split.exact:
        return True
    return any(entry != module and entry in module for entry in split.plain) or any(
        fnmatchcase(module, entry) for entry in split.globs
    )


class _VllmEntries:
    """`foo*` split into `foo` and `foo.*`, as vLLM does before matching, then sorted by how they can match."""

    def __init__(self, entries: tuple[str, ...]) -> None:
        every: list[str] = []
        for entry in entries:
            if len(entry) >= 2 and entry[-1] == "*" and entry[-2] != ".":
                every += [entry[:-1], entry[:-1] + ".*"]
            else:
                every.append(entry)
        self.exact = frozenset(every)
        self.expert_entries = [entry for entry in every if "experts" in entry]
        self.globs = [entry for entry in every if any(c in entry for c in "*?[")]
        self.plain = every  # a glob cannot be a substring of a module path, so the test is harmless for globs


@lru_cache(16)
def _vllm_split(entries: tuple[str, ...]) -> _VllmEntries:
    return _VllmEntries(entries)


def _sglang_excluded(entries: tuple[str, ...], module: str) -> bool:
    patterns = _sglang_patterns(entries)
    parent, _, last = module.rpartition(".")
    if last != "experts":  # linears are first asked by path; the fused experts only by pattern
        if last in FUSED:
            shards = [f"{parent}.{shard}" for shard in FUSED[last]]
            if _all_or_none(any(_path_match(entry, shard) for entry in entries) for shard in shards):
                return True
        elif any(_path_match(entry, module) for entry in entries):
            return True
    pieces = module.split(".")
    for entry, pattern in zip(entries, patterns, strict=True):
        if pattern.fullmatch(module) or any(pattern.fullmatch(piece) for piece in pieces):
            return True
        tail = entry.rpartition(".")[2]
        if tail in _SGLANG_MLA_PARTS and tail in last:
            return True
    return False


@lru_cache(16)
def _sglang_patterns(entries: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(re.escape(entry).replace(r"\*", ".*")) for entry in entries)


def _path_match(entry: str, path: str) -> bool:
    return f".{entry.rstrip('.')}." in f".{path}."


def _all_or_none(answers: Iterable[bool]) -> bool:
    found = list(answers)
    if any(found) and not all(found):
        raise SplitFusedError("some but not all shards of a fused module are excluded")
    return all(found)


def runtime_module(engine: Engine, role: TensorRole) -> str:
    """The module an engine asks about for one linear of the checkpoint."""
    if role.role is Role.ROUTED_EXPERT:
        return role.module.partition(".experts.")[0] + ".experts"
    parent, _, last = role.module.rpartition(".")
    if last in _RUNTIME_NAMES[engine]:
        return f"{parent}.{_RUNTIME_NAMES[engine][last]}"
    for fused in ("gate_up_proj", "qkv_proj"):
        if last in FUSED[fused]:
            return f"{parent}.{fused}"
    return role.module


def contradictions(entries: Sequence[str], modules: Iterable[tuple[TensorRole, bool]]) -> list[str]:
    """What an engine would read differently from what is in the files: one line each, empty if all agree.

    modules: every linear of the checkpoint and whether it is stored quantized.
    """
    problems: dict[str, None] = {}
    asked: dict[tuple[Engine, str], bool | None] = {}
    shared_kept: set[int | None] = set()
    experts_packed: set[int | None] = set()
    for role, is_quantized in modules:
        if role.role is Role.SHARED_EXPERT and not is_quantized:
            shared_kept.add(role.layer)
        if role.role is Role.ROUTED_EXPERT and is_quantized and not role.mtp:
            experts_packed.add(role.layer)
        for engine in ENGINES:
            module = runtime_module(engine, role)
            key = (engine, module)
            if key not in asked:
                try:
                    asked[key] = excluded(engine, entries, module)
                except SplitFusedError as error:
                    asked[key] = None
                    problems[f"{engine}: {module}: {error}"] = None
            if asked[key] is is_quantized:
                stored, read = ("quantized", "excluded") if is_quantized else ("unquantized", "not excluded")
                problems[f"{engine}: {role.module} is stored {stored} but {module} is {read}"] = None
    if shared_kept & experts_packed and not any("shared_expert" in entry for entry in entries):
        problems[
            "sglang: no entry contains 'shared_expert', so a BF16 shared expert would be fused with packed ones"
        ] = None
    return list(problems)


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Sort key that orders numbers by value, names before layers."""
    return [(piece.isdigit(), int(piece) if piece.isdigit() else 0, piece) for piece in re.split(r"(\d+)", text)]
