"""The `ignore` / `exclude_modules` list: written so that every engine reads it alike.

The list names what is *not* quantized. Each engine matches it by its own rules (`Engine.excluded`), with traps: a bare
`model.layers.7` also excludes layers 70 to 79 in vLLM, one half of a fused pair raises, a pattern without
`shared_expert` makes SGLang fuse a BF16 shared expert into packed ones. `exclusion_entries` writes layer-anchored
entries that avoid them; `contradictions` proves it for a given set of modules, and is what writer and gate both ask.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.engine import NEVER_ASKED, Engine, EngineName, SplitFusedError
from halfbyte.engines.packing import PLAIN_INDEXER
from halfbyte.models.family import Family
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import Role, TensorRole

SHARED_EXPERT = "shared_expert"
"""What an entry must contain for SGLang to leave a shared expert by itself."""


def exclusion_entries(kept: Iterable[str], quantized: Iterable[str], roles: RoleMap) -> list[str]:
    """The list to write.

    kept: paths of all linear-like modules left unquantized (experts per expert). quantized: paths of the others.
    A subtree with nothing quantized becomes one entry: a whole layer `model.layers.N.*` (the dot matters), an MTP
    layer `model.layers.N*` as ModelOpt and NVIDIA spell it (safe: no layer comes after it), a submodule
    `path*`, or `path.*` where that would also name a quantized one beside it, a single linear by its name. Sorted by
    layer.
    """
    above_quantized: set[str] = set()
    quantized_in: dict[str, set[str]] = {}
    for module in quantized:
        while module and module not in above_quantized:
            above_quantized.add(module)
            module, _, last = module.rpartition(".")
            quantized_in.setdefault(module, set()).add(last)
    entries: set[str] = set()
    for module in kept:
        if module in above_quantized:
            continue
        top = module  # the highest ancestor with nothing quantized below, but never above a layer
        parent = top.rpartition(".")[0]
        while parent and parent not in above_quantized and not _holds_the_layers(parent, roles):
            top, parent = parent, parent.rpartition(".")[0]
        beside = quantized_in.get(parent, ())
        longer = any(name.startswith(top.rpartition(".")[2]) for name in beside)
        entries.add(f"{top}.*" if longer and top != module else _entry(top, module, roles))
    return sorted(entries, key=_natural)


def tied_head(roles: RoleMap, modules: Iterable[str]) -> TensorRole | None:
    """The output head that no file holds because it is the embedding: vLLM builds it and asks the list about it.

    modules: all that the checkpoint has. Run: vLLM 0.26.0, ERNIE 4.5 and Hunyuan, which without an entry stop in
    Marlin's preparation of packed weights.
    """
    module = roles.wrapping.outer("lm_head.weight").removesuffix(".weight")
    if not roles.arch.tied_embeddings or module in set(modules):
        return None
    return TensorRole(Role.LM_HEAD, module, "weight")


def listed_besides(kept: Iterable[TensorRole], roles: RoleMap) -> Iterator[str]:
    """Modules that no file holds under these names, and that engines ask about beside linears that are kept.

    Where k_proj makes the values too, both engines have a v_proj all the same (`packed_modules_mapping`: a fused module
    is excluded where all its parts are); and experts that a layer holds itself stand in a module of theirs there.
    """
    into = roles.family.experts_in
    for role in kept:
        above, _, last = role.module.rpartition(".")
        if role.role is Role.ATTENTION and last == "k_proj" and role.layer in roles.arch.keys_as_values:
            yield f"{above}.v_proj"
        if into and role.role is Role.ROUTED_EXPERT:
            yield role.module.replace(".experts.", f".{into}.experts.")


def _holds_the_layers(path: str, roles: RoleMap) -> bool:
    return f"{roles.layers_path}.".startswith(f"{path}.")


def _entry(top: str, module: str, roles: RoleMap) -> str:
    if top == module:
        return module
    parent, _, number = top.rpartition(".")
    if parent == roles.layers_path:
        return f"{top}*" if roles.is_mtp(int(number)) else f"{top}.*"
    return f"{top}*"


class Misreading(NamedTuple):
    """What one engine would read otherwise than it lies in the files. module: the checkpoint's, None if many."""

    engine: EngineName
    module: str | None
    what: str

    def __str__(self) -> str:
        return f"{self.engine}: {self.what}"


def looked_up(engine: Engine, role: TensorRole, family: Family) -> bool:
    """Whether an engine asks the list about a linear: some it builds without a quantization config, listed or not.

    Of the router this is a fact of engine and family; NVIDIA's own list omits it for GLM-5.2.
    """
    if role.mtp and not engine.packs_mtp:
        return False
    if role.role is Role.ROUTER:
        return family.support(engine.name).asks_router is True
    return role.role not in NEVER_ASKED and not (role.role is Role.INDEXER and role.projection in PLAIN_INDEXER)


def contradictions(
    entries: Sequence[str],
    modules: Iterable[tuple[TensorRole, bool]],
    engines: Iterable[EngineName] = tuple(ENGINES),
    gated: bool = True,
    experts_in: str = "",
) -> list[Misreading]:
    """What an engine would read differently from what is in the files, empty if all agree.

    modules: linears of the checkpoint and whether each is stored quantized. gated: whether its MLPs have a gate_proj.
    experts_in: `Family.experts_in`.
    """
    entries, chosen = tuple(entries), [ENGINES[name] for name in engines]
    problems: dict[str, Misreading] = {}
    asked: dict[tuple[EngineName, str], bool | None] = {}
    shared_kept: set[int | None] = set()
    experts_packed: set[int | None] = set()

    def note(engine: Engine, module: str | None, what: str) -> None:
        found = Misreading(engine.name, module, what)
        problems.setdefault(str(found), found)

    for role, is_quantized in modules:
        if role.role is Role.SHARED_EXPERT and SHARED_EXPERT in role.module and not is_quantized:
            shared_kept.add(role.layer)
        if role.role is Role.ROUTED_EXPERT and is_quantized and not role.mtp:
            experts_packed.add(role.layer)
        for engine in chosen:
            module = engine.runtime_module(role, gated, experts_in)
            key = (engine.name, module)
            if key not in asked:
                try:
                    asked[key] = engine.excluded(entries, module)
                except SplitFusedError as error:
                    asked[key] = None
                    note(engine, role.module, f"{module}: {error}")
            if asked[key] is is_quantized:
                stored, read = ("quantized", "excluded") if is_quantized else ("unquantized", "not excluded")
                note(engine, role.module, f"{role.module} is stored {stored} but {module} is {read}")
    if shared_kept & experts_packed and not any(SHARED_EXPERT in entry for entry in entries):
        for engine in chosen:
            if engine.folds_shared:
                fused = "so a BF16 shared expert would be fused with packed ones"
                note(engine, None, f"no entry contains {SHARED_EXPERT!r}, {fused}")
    return list(problems.values())


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Sort key that orders numbers by value, names before layers."""
    return [(piece.isdigit(), int(piece) if piece.isdigit() else 0, piece) for piece in re.split(r"(\d+)", text)]
