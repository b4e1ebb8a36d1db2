"""Depth: was enough of the checkpoint read for this policy?"""

from collections.abc import Iterator

from halfbyte.gate.depths import reaches
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import Found
from halfbyte.gate.registry import rule


@rule("gate.depth", "deny", "A policy may ask for more than headers; a shallower run cannot pass it.")
def depth(facts: Facts) -> Iterator[Found]:
    wanted = facts.policy.required_depth
    if not reaches(facts.options.depth, wanted):
        yield Found(f"judged at depth {facts.options.depth}, the policy asks for {wanted}", missing=True)
