"""Selective quantization: four bits for the routed experts, and for nothing that every token passes through."""

from collections import Counter
from collections.abc import Iterator

from halfbyte.checkpoint.inventory import Entry
from halfbyte.engines.packing import halves_apart, why_unpackable
from halfbyte.formats.catalogue import BF16, F32, NVFP4
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import Found, plural
from halfbyte.gate.quantization import read_as_packed
from halfbyte.gate.registry import rule
from halfbyte.models.roles import Role

OUTPUT = "o_proj"
LINEAR_ROLES = (Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP, Role.ATTENTION)


@rule(
    "selective.role-format",
    "deny",
    "A parameter that every token passes through costs three to four times as much quality in four bits as a routed "
    "expert's, and saves next to nothing: shared experts, attention, indexer, router, embeddings and head stay as "
    "they are.",
)
def role_format(facts: Facts) -> Iterator[Found]:
    allowed = facts.policy.formats
    for (role, mtp, form), count in facts.formats.items():
        wanted = allowed.mtp if mtp else allowed.roles.get(role)
        if wanted is None or form in wanted:
            continue
        entry = facts.first(role, mtp, form)
        if BF16 in wanted and allowed.as_published == "allow" and _as_published(facts, entry):
            continue
        where = f"{role} (MTP)" if mtp else str(role)
        message = f"{where}: {plural(count, 'tensor')} stored as {form}, the policy allows {', '.join(wanted)}"
        if (role, mtp, form) == (Role.ATTENTION, False, NVFP4) and allowed.packed_attention == "warn" and _loads(facts):
            message = f"{message}; engines load it, the price is in quality"
            yield Found(message, module=entry.role.module, at_most="warn")
        else:
            yield Found(message, module=entry.role.module)


def _as_published(facts: Facts, entry: Entry) -> bool:
    """Whether a weight is in the format in which the family's classes read it beside NVFP4 experts."""
    return facts.mixture is not None and entry.format in facts.mixture.wanted(entry.role)


def _loads(facts: Facts) -> bool:
    """Whether the attention's packed linears are some that publishers pack and engines take: `o_proj` anywhere
    (NVIDIA's DeepSeek checkpoints have it so), under latent attention also the others but kv_b_proj, no half of a fused
    pair by itself; and whether the metadata say so. Such a checkpoint is not broken."""
    latent = facts.arch is not None and facts.arch.mla is not None
    packed: dict[str, list[Entry]] = {}
    linears: dict[str, list[str]] = {}
    for entry, *_ in facts.linears:
        owner = entry.role.module.rpartition(".")[0]
        if entry.role.role is Role.ATTENTION and not entry.role.mtp and entry.role.projection is not None:
            linears.setdefault(owner, []).append(entry.role.projection)
            if entry.format == NVFP4:
                packed.setdefault(owner, []).append(entry)
    for owner, entries in packed.items():
        names = [str(entry.role.projection) for entry in entries]
        if not latent and names != [OUTPUT]:
            return False
        if halves_apart(names, linears[owner]) or any(
            why_unpackable(Role.ATTENTION, name, latent, {}) for name in names
        ):
            return False
    return read_as_packed(facts, [entry for entries in packed.values() for entry in entries])


@rule(
    "selective.experts-quantized",
    "deny",
    "This gate is for checkpoints whose routed experts are in NVFP4: one in which none are is another artefact, "
    "larger and planned for differently.",
)
def experts_quantized(facts: Facts) -> Iterator[Found]:
    layers = facts.expert_layers
    if not layers:
        return
    whole = [layer for layer, forms in layers.items() if NVFP4 not in forms]
    if len(whole) == len(layers):
        forms = sorted({form for by_form in layers.values() for form in by_form})
        yield Found(f"no layer's routed experts are in NVFP4; they are {', '.join(forms)}")


@rule(
    "selective.unquantized-layers",
    "deny",
    "Layers whose experts were left in 16 bits take three and a half times the planned memory; a policy says how many "
    "it accepts.",
)
def unquantized_layers(facts: Facts) -> Iterator[Found]:
    limit = facts.policy.formats.unquantized_expert_layers
    whole = sorted(layer for layer, forms in facts.expert_layers.items() if NVFP4 not in forms)
    if limit is not None and len(whole) > limit:
        listed = ", ".join(map(str, whole[:8])) + (", ..." if len(whole) > 8 else "")
        message = f"routed experts of {plural(len(whole), 'layer')} ({listed}) are not NVFP4, the policy allows {limit}"
        assert facts.roles is not None
        yield Found(message, module=facts.roles.layer_path(whole[0]))


@rule(
    "selective.mixed-experts",
    "deny",
    "Engines hold a layer's experts in one fused tensor and read one format for all: a layer that mixes formats loads "
    "wrong or not at all.",
)
def mixed_experts(facts: Facts) -> Iterator[Found]:
    for layer, forms in sorted(facts.expert_layers.items()):
        if len(forms) > 1:
            counts = {form: sum(some.entries for some in forms[form]) for form in sorted(forms)}
            rarest = min(forms, key=counts.__getitem__)
            listed = ", ".join(f"{count} {form}" for form, count in counts.items())
            message = f"layer {layer}: routed experts in different formats ({listed})"
            yield Found(message, module=forms[rarest][0].first.role.module)


@rule(
    "selective.router-bias",
    "deny",
    "The router's `e_score_correction_bias` (in DeepSeek-V4 `bias`) decides which experts a token visits; rounded to "
    "16 bits it reorders the top-k.",
)
def router_bias(facts: Facts) -> Iterator[Found]:
    for entry, *_ in facts.alike:
        if facts.roles is not None and facts.roles.corrects(entry.role) and entry.format != F32:
            yield Found(f"{entry.name} is {entry.format}, wanted f32", tensor=entry.name)
            return


@rule(
    "selective.blanket",
    "deny",
    "A blanket four-bit quantization (experts, shared experts and attention alike) was measured to lose two and a half "
    "times as much as routed experts alone, for 5 % fewer bytes.",
)
def blanket(facts: Facts) -> Iterator[Found]:
    by_role: dict[Role, Counter[bool]] = {}
    for entry, count, _ in facts.linears:
        if entry.role.role in LINEAR_ROLES and not entry.role.mtp and len(entry.shape) == 2:
            by_role.setdefault(entry.role.role, Counter())[entry.format == NVFP4] += count
    every_token = [role for role in by_role if role is not Role.ROUTED_EXPERT]
    packed = {role: counts[True] / counts.total() for role, counts in by_role.items()}
    if packed.get(Role.ROUTED_EXPERT, 0) > 0.5 and every_token and all(packed[role] > 0.5 for role in every_token):
        yield Found(f"blanket quantization: most of {', '.join(sorted(map(str, by_role)))} is NVFP4")


@rule(
    "selective.bits-per-weight",
    "warn",
    "Bits per weight of the whole checkpoint say at a glance whether it is what its name claims.",
)
def bits_per_weight(facts: Facts) -> Iterator[Found]:
    parameters = sum(some.parameters for some in facts.alike)
    if not parameters:
        return
    bits = 8 * sum(some.bytes for some in facts.alike) / parameters
    bounds = facts.policy.formats.bits_per_weight
    if bounds.min is not None and bits < bounds.min:
        yield Found(f"{bits:.3f} bits per weight, the policy wants at least {bounds.min:g}")
    if bounds.max is not None and bits > bounds.max:
        yield Found(f"{bits:.3f} bits per weight, the policy wants at most {bounds.max:g}")
