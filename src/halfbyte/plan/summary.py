"""The answers of a plan in short, for a terminal of 80 columns: does it fit, how many, how fast, for how much."""

from halfbyte.engines.server import GIB
from halfbyte.plan.result import Plan


def summary(plan: Plan) -> list[tuple[str, str]]:
    """What is asked, and the answer. `render.sentences` has all of it, with how each figure comes about."""
    memory, d = plan.memory, plan.memory.deployment
    peak = f"peak {memory.peak_bytes / GIB:.1f} of {memory.usable_bytes / GIB:.1f} GiB in {memory.peak_phase}"
    if plan.fits:
        found = [("fits", f"yes, {peak}; {memory.headroom_bytes / GIB:.1f} GiB are free")]
    else:
        found = [("fits", f"NO: {peak}")]
        found += [("", problem) for problem in memory.problems]
        change = (
            plan.change.what if plan.change is not None else "none of fraction, chunk, context, cache, recipe, GPUs"
        )
        found.append(("would fit by", change))
    found.append(
        ("sequences", f"{plan.max_concurrency:,} of {d.context:,} tokens at once, or one of {plan.max_context:,}")
    )
    found.append(("KV cache", f"{memory.kv_tokens:,} tokens at {memory.kv.token_bytes:,.0f} bytes"))
    found += _speed(plan)
    usd = plan.cost.get("usd_per_million")
    if usd:
        price = (
            f"${usd['output']:.2f} per 1M output tokens, ${usd['input']:.2f} input, ${usd['cached_input']:.3f} cached"
        )
        found.append(("price", f"{price}, at {plan.cost['utilisation']:.0%} utilisation"))
    else:
        found.append(("price", "not asked: give --price, dollars per GPU-hour"))
    if plan.traffic is not None:
        replicas = plan.traffic["replicas_for_slo"]
        found.append(("traffic", f"replicas for the service level: {replicas or 'no number helps'}"))
    return found


def _speed(plan: Plan) -> list[tuple[str, str]]:
    speed = plan.throughput
    if not speed:
        return []
    found = [
        (
            "speed",
            f"{speed['output_tokens_per_s']:,.0f} output tokens/s with {speed['concurrency']} at once of "
            f"{speed['input_tokens']:,} in, {speed['output_tokens']:,} out: first token {speed['ttft_ms']:,.0f} ms, "
            f"then {speed['tpot_ms']:.1f} ms each (estimated)",
        )
    ]
    slo = speed.get("at_slo")
    held = f"{slo['concurrency']} at once, {slo['requests_per_s']:.3f} requests/s" if slo else "no load meets it"
    return [*found, ("in the SLO", held)]
