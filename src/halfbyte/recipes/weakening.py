"""What a policy asks less of than another: said wherever a decision by it is shown."""

from collections.abc import Iterator

from halfbyte.recipes.policy import Bounds, Numerics, Policy, Severity

SEVERITIES: tuple[Severity, ...] = ("deny", "warn", "info")
DEPTHS = ("headers", "scales", "full")
STRICTER_WHEN_HIGHER = frozenset(("input_scale_ruins", "input_scale_clips", "unused_range"))
"""Limits of `numerics` that refuse what lies below them; the others refuse what lies above."""


def weakened(policy: Policy, shipped: Policy, severities: dict[str, Severity]) -> list[str]:
    """In which respects `policy` lets pass what `shipped` would not. severities: of the rules, by themselves."""
    return [
        *_rules(policy, shipped, severities),
        *(f"{waiver.rule} is waived for {waiver.match!r} until {waiver.expires}" for waiver in policy.waivers),
        *_scope(policy, shipped),
        *_formats(policy, shipped),
        *_numerics(policy.numerics, shipped.numerics),
        *_supply(policy, shipped),
    ]


def _rules(policy: Policy, shipped: Policy, severities: dict[str, Severity]) -> Iterator[str]:
    for rule, setting in policy.rules.items():
        theirs = shipped.rules.get(rule)
        was_on = theirs is None or theirs.enabled
        if not setting.enabled:
            if was_on:
                yield f"{rule} is switched off"
            continue
        own = severities[rule]
        was, now = (theirs.severity if theirs else None) or own, setting.severity or own
        if SEVERITIES.index(now) > SEVERITIES.index(was):
            yield f"{rule} is {now} instead of {was}"


def _scope(policy: Policy, shipped: Policy) -> Iterator[str]:
    if DEPTHS.index(policy.required_depth) < DEPTHS.index(shipped.required_depth):
        yield f"required_depth is {policy.required_depth} instead of {shipped.required_depth}"
    for engine in sorted(set(shipped.engines) - set(policy.engines)):
        yield f"{engine} is not asked"
    if shipped.hardware.required and not policy.hardware.required:
        yield "hardware need not be stated"
    for major in sorted(set(policy.hardware.fallback) - set(shipped.hardware.fallback)):
        yield f"compute {major} is accepted as a fallback"
    for wanted in shipped.evidence:
        if wanted not in policy.evidence:
            yield f"evidence of kind {wanted.kind} is not asked for as it is there"


def _formats(policy: Policy, shipped: Policy) -> Iterator[str]:
    for role, allowed in policy.formats.roles.items():
        more = sorted(set(allowed) - set(shipped.formats.roles.get(role, allowed)))
        if more:
            yield f"{role} may also be {', '.join(more)}"
    for role in shipped.formats.roles:
        if role not in policy.formats.roles:
            yield f"{role} may be anything"
    more = sorted(set(policy.formats.mtp) - set(shipped.formats.mtp))
    if more:
        yield f"MTP layers may also be {', '.join(more)}"
    if policy.formats.packed_attention == "warn" and shipped.formats.packed_attention == "deny":
        yield "attention in NVFP4 that engines load is a warning"
    if policy.formats.as_published == "allow" and shipped.formats.as_published == "deny":
        yield "what engines take in a published format of fewer bits is allowed"
    yield from _bounds("bits_per_weight", policy.formats.bits_per_weight, shipped.formats.bits_per_weight)
    ours, theirs = policy.formats.unquantized_expert_layers, shipped.formats.unquantized_expert_layers
    if theirs is not None and (ours is None or ours > theirs):
        yield f"unquantized_expert_layers is {ours} instead of {theirs}"


def _numerics(ours: Numerics, theirs: Numerics) -> Iterator[str]:
    for name in Numerics.model_fields:
        mine, other = getattr(ours, name), getattr(theirs, name)
        if isinstance(mine, Bounds):
            yield from _bounds(name, mine, other)
        elif mine < other if name in STRICTER_WHEN_HIGHER else mine > other:
            yield f"{name} is {mine:g} instead of {other:g}"


def _bounds(name: str, ours: Bounds, theirs: Bounds) -> Iterator[str]:
    if theirs.min is not None and (ours.min is None or ours.min < theirs.min):
        yield f"{name} has {'no least' if ours.min is None else f'{ours.min:g} as its least'} instead of {theirs.min:g}"
    if theirs.max is not None and (ours.max is None or ours.max > theirs.max):
        yield f"{name} has {'no most' if ours.max is None else f'{ours.max:g} as its most'} instead of {theirs.max:g}"


def _supply(policy: Policy, shipped: Policy) -> Iterator[str]:
    ours, theirs = policy.supply_chain, shipped.supply_chain
    if theirs.licences is not None:
        more = None if ours.licences is None else sorted(set(ours.licences) - set(theirs.licences))
        if more is None:
            yield "any licence is accepted"
        elif more:
            yield f"licences {', '.join(more)} are accepted too"
    if theirs.signature.required and not ours.signature.required:
        yield "no signature is asked for"
