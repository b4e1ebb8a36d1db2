"""The command-line flags with which an engine runs a plan. Read in vLLM 0.33 and SGLang 0.5.23 (docs/engines.md 9)."""

from halfbyte.models import FAMILIES
from halfbyte.plan.memory import MemoryPlan
from halfbyte.plan.target import PlannedModel


def engine_flags(model: PlannedModel, plan: MemoryPlan) -> list[str]:
    """Flags in the order of the notes' table; the model's path and host are the caller's."""
    d = plan.deployment
    flags = d.facts.flags(d, plan.limits)
    return flags + d.facts.parser_flags(FAMILIES[model.arch.model_type].support(d.engine))
