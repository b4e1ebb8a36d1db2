"""Every tensor's role, the logical tensors, and how they compare with what config.json says must be there."""

from collections import Counter, defaultdict

from halfbyte.checkpoint.inventory import alike, each_entry, summed
from halfbyte.engines.packing import TIED_HEAD
from halfbyte.errors import CheckpointError, HalfbyteError, UnknownTensorError
from halfbyte.gate.compressed import all_as_modelopt
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import plural, printable
from halfbyte.models import promised_tensors, roles_of
from halfbyte.models.architecture import Architecture
from halfbyte.models.family import Described
from halfbyte.models.roles import CACHE_SCALES, Role, TensorRole

Key = tuple[Role, int | None, str | None]


def explain_tensors(facts: Facts) -> None:
    """Fill roles, arch and logical tensors; note what contradicts the config."""
    try:
        facts.roles = roles_of(facts.config)
        facts.arch = facts.roles.arch
    except HalfbyteError as error:
        facts.problem("integrity.config", printable(error.message), file="config.json")
        return
    except (ValueError, TypeError, OverflowError, KeyError) as error:  # a value of a type that no model's config has
        facts.problem(
            "integrity.config", f"config.json: a value is senseless: {printable(str(error))}", file="config.json"
        )
        return
    try:
        facts.alike = alike(facts.tensors, facts.roles)
    except CheckpointError:  # something is wrong: note all of it, so that the others are still judged
        facts.alike = summed(
            each_entry(facts.tensors, facts.roles, lambda *damage: _note(facts, *damage), every_name=True)
        )
    facts.alike = all_as_modelopt(facts.alike)
    if facts.tensors:
        _compare(facts, facts.arch)


_RULES = {"layers": "integrity.layers", "experts": "integrity.experts", "indexer": "integrity.indexer"}
"""What of the config a tensor's name contradicts -> the rule that says so."""


def _note(facts: Facts, name: str, error: CheckpointError) -> None:
    """A tensor without a role is noted under what it contradicts; a module whose tensors do not fit, by itself."""
    if isinstance(error, UnknownTensorError):
        rule = _RULES.get(error.contradicts, "integrity.unknown-tensor")
        facts.problem(rule, printable(error.message, 500), tensor=name)
    else:
        facts.problem("integrity.parts", printable(error.message, 500), module=name)


def _compare(facts: Facts, arch: Architecture) -> None:
    """What the config promises against what is there, by role, layer, projection and shape."""
    promised: dict[Key, Counter[tuple[int, ...]]] = {}
    for tensor in promised_tensors(arch):
        promised.setdefault(_key(tensor), Counter())[tensor.shape] += tensor.count
    there: defaultdict[Key, Counter[tuple[int, ...]]] = defaultdict(Counter)
    fused: set[tuple[int | None, str | None]] = set()
    stacked = facts.roles is not None and facts.roles.family.stacked
    # a shard or a module that could not be read is reported as such; what it would have held is not missing besides
    whole = not any(rule in facts.problems for rule in ("integrity.parts", "integrity.shard"))
    for entry, count, _ in facts.alike:
        role = entry.role
        if role.part in CACHE_SCALES or _beside(role):
            continue
        if role.fused and not stacked:
            fused.add((role.layer, role.projection))
            continue
        key = (role.role, role.layer, None if role.role is Role.ROUTER else role.projection)
        there[key][entry.shape] += count
    fused_layers = {layer for layer, _ in fused}
    for key, shapes in promised.items():
        if key[0] is Role.ROUTED_EXPERT and key[1] in fused_layers:
            continue
        found = there[key] if key in there else Counter()
        wrong, absent = found - shapes, shapes - found
        if wrong:
            _note_shape(facts, key, wrong, absent)
        lacking = absent.total() - wrong.total()
        if lacking > 0 and whole:
            _note_missing(facts, arch, key, lacking, shapes.total())
    head: Key = (Role.LM_HEAD, None, None)
    if arch.tied_embeddings and there.get(head) == Counter([(arch.vocab, arch.hidden)]):
        del there[head]
        assert facts.roles is not None, "tensors were explained"
        name = facts.roles.wrapping.outer("lm_head.weight")
        facts.problem("integrity.shape", TIED_HEAD, tensor=name, at_most="warn")
    for key, shapes in there.items():
        if key not in promised:
            _note_shape(facts, key, shapes, Counter())
    if whole:
        _join_missing_layers(facts, arch)


def _key(tensor: Described) -> Key:
    return tensor.role, tensor.layer, None if tensor.role is Role.ROUTER else tensor.projection


def _place(key: Key) -> str:
    role, layer, projection = key
    where = "" if layer is None else f" of layer {layer}"
    return f"{role}{f' {projection}' if projection else ''}{where}"


def _note_shape(facts: Facts, key: Key, wrong: Counter[tuple[int, ...]], absent: Counter[tuple[int, ...]]) -> None:
    shape = next(iter(wrong))
    entry = next(
        e
        for e, *_ in facts.alike
        if e.shape == shape and (e.role.role, e.role.layer, None if key[0] is Role.ROUTER else e.role.projection) == key
    )
    wanted = " or ".join(str(list(shape)) for shape in absent) or "no such tensor"
    more = f" ({plural(wrong.total(), 'tensor')} like it)" if wrong.total() > 1 else ""
    message = f"{printable(entry.name)}: shape {list(shape)}, config.json implies {wanted}{more}"
    facts.problem("integrity.shape", message, tensor=entry.name)


def _note_missing(facts: Facts, arch: Architecture, key: Key, lacking: int, promised: int) -> None:
    role, layer, _ = key
    message = f"{_place(key)}: {lacking} of {plural(promised, 'tensor')} missing"
    if layer is not None and layer >= arch.layers:
        rule = "integrity.mtp"
    elif role is Role.INDEXER:
        rule = "integrity.indexer"
    elif role is Role.ROUTED_EXPERT:
        rule = "integrity.experts"
    else:
        rule = "integrity.missing-tensor"
    module = _layer(facts, layer) if layer is not None else str(role)
    facts.problem(rule, message, module=module)


def _beside(role: TensorRole) -> bool:
    """Whether it is of another tower: config.json's promises are about the text model."""
    return role.role is Role.TOWER


def _layer(facts: Facts, layer: int) -> str:
    assert facts.roles is not None
    return facts.roles.layer_path(layer)


def _join_missing_layers(facts: Facts, arch: Architecture) -> None:
    """A layer of which nothing is there is one fact, not twenty."""
    there = {entry.role.layer for entry, *_ in facts.alike}
    gone = [layer for layer in range(arch.layers) if layer not in there]
    for layer in gone[:20]:
        facts.problem(
            "integrity.layers", f"layer {layer} of {arch.layers} is missing altogether", module=_layer(facts, layer)
        )
    announced = range(arch.layers, arch.layers + arch.mtp_layers)
    absent = {_layer(facts, layer) for layer in [*gone, *(n for n in announced if n not in there)]}
    for rule in ("integrity.missing-tensor", "integrity.experts", "integrity.indexer", "integrity.mtp"):
        kept = [found for found in facts.problems.get(rule, ()) if found.module not in absent]
        if rule in facts.problems:
            facts.problems[rule] = kept
    for layer in announced:
        if layer not in there:
            message = (
                f"config.json announces an MTP layer {layer} but the files have none: an engine that drafts with it "
                "drafts garbage"
            )
            facts.problem("integrity.mtp", message, module=_layer(facts, layer))
