"""Loadability, continued: a sound checkpoint on an engine that is not."""

from collections.abc import Iterator

from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.faults import Loaded, Met, faults_met
from halfbyte.engines.kernels import gpu_family
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import Found
from halfbyte.gate.pools import pools_of
from halfbyte.gate.registry import rule
from halfbyte.gate.rules.serving_config import version_numbers
from halfbyte.models import family_of
from halfbyte.models.roles import Role


@rule(
    "loadability.engine-fault",
    "deny",
    "Releases of engines refuse, or answer wrongly without a word, what they should take. A fault that is certain for "
    "this engine, version and hardware refuses; one that may be met warns. Each names the flag or version that helps.",
)
def engine_fault(facts: Facts) -> Iterator[Found]:
    loaded = loaded_of(facts)
    if loaded is None:
        return
    gpus: list[str | None] = [*sorted({gpu_family(pool.major, pool.minor) for pool in pools_of(facts).usable})] or [
        None
    ]
    version = version_numbers(facts.options.engine_version or "")
    for engine in facts.engines:
        met = [faults_met(engine, ENGINES[engine].faults, loaded, gpu, version) for gpu in gpus]
        for found in _met_on_all(met):
            hard = found.certain and found.fault.fatal
            yield Found(found.message, at_most="deny" if hard else "warn")


def _met_on_all(by_pool: list[list[Met]]) -> list[Met]:
    """What no pool of the target escapes; certain where it is on all."""
    common = set.intersection(*({found.fault.name for found in met} for met in by_pool))
    found = {name: [met for pool in by_pool for met in pool if met.fault.name == name] for name in common}
    firsts = [met for met in by_pool[0] if met.fault.name in common]
    return [Met(met.fault, all(same.certain for same in found[met.fault.name]), met.message) for met in firsts]


def loaded_of(facts: Facts) -> Loaded | None:
    """What an engine's faults ask of this checkpoint; None where config.json does not describe a model."""
    if facts.arch is None or facts.roles is None:
        return None
    _, text = family_of(facts.config)
    scale, dtype = text.get("routed_scaling_factor"), text.get("dtype") or text.get("torch_dtype")
    shared = {entry.role.module for entry, *_ in facts.alike if entry.role.role is Role.SHARED_EXPERT}
    packed = {entry.role.module for entry, *_ in facts.packed}
    experts = {entry.role.mtp for entry, *_ in facts.packed if entry.role.role is Role.ROUTED_EXPERT}
    return Loaded(
        family=facts.roles.family,
        arch=facts.arch,
        algorithm=facts.algorithm,
        packed_experts=bool(experts),
        packed_drafts=True in experts,
        kept_shared=bool(shared - packed),
        routed_scale=float(scale) if isinstance(scale, int | float) else 1.0,
        dtype=str(dtype or "").removeprefix("torch."),
    )
