"""A plan on the terminal: the sum as a table and a stacked bar, then the answers in sentences."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from halfbyte.engines.server import GIB
from halfbyte.plan.result import Plan
from halfbyte.plan.terms import PHASES, PREFILL, Term
from halfbyte.text import line

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red", "white")
KINDS = ("weights", "KV cache", "forward buffers", "graphs", "context and communicators", "reserve", "free")
SMALL_GIB = 0.005


def show(plan: Plan, console: Console | None = None) -> None:
    """Print the whole plan."""
    console = console or Console()
    if not console.is_terminal:
        console.width = 140
    console.print(line(_heading(plan)), highlight=False, markup=False, soft_wrap=True)
    console.print(_terms(plan))
    for phase in PHASES:
        console.print(_bar(plan, phase, max(console.width - 36, 20)))
    console.print(
        Text.assemble(*((f"  {kind}", colour) for kind, colour in zip(KINDS, (*COLOURS[:6], "dim"), strict=True)))
    )
    for sentence in sentences(plan):
        console.print(line(sentence), highlight=False, markup=False, soft_wrap=True)


def _heading(plan: Plan) -> str:
    d = plan.memory.deployment
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    how = f"tp {d.tp}" + "".join(
        f", {n} {v}" for n, v in (("pp", d.pp), ("dp", d.dp), ("ep", d.ep), ("dcp", d.dcp)) if v > 1
    )
    recipe = f" as {plan.model.recipe}" if plan.model.recipe else ""
    size = f"{plan.model.checkpoint_bytes / 1e9:.1f} GB"
    return f"{plan.model.name}{recipe} ({size}) on {d.gpus} x {d.gpu.name}, {d.engine}, {how}: {verdict}"


def _terms(plan: Plan) -> Table:
    table = Table(title="memory of one GPU", title_justify="left", pad_edge=False)
    for name in ("term", "GiB", "phase", "formula", "source"):
        table.add_column(name, justify="right" if name == "GiB" else "left", overflow="fold")
    for term in plan.memory.terms:
        if term.gib >= SMALL_GIB:
            row = (term.name, f"{term.gib:.2f}", term.phase, term.formula, term.source)
            table.add_row(*(Text(line(cell)) for cell in row))
    return table


def kind_of(term: Term) -> str:
    """Which segment of the bar a term belongs to."""
    if term.name.startswith("weights"):
        return "weights"
    if term.name.startswith("KV cache"):
        return "KV cache"
    by_name = {
        "CUDA graphs": "graphs",
        "process context": "context and communicators",
        "communicators": "context and communicators",
        "allocator reserve": "reserve",
    }
    return by_name.get(term.name, "forward buffers")


def _bar(plan: Plan, phase: str, width: int) -> Text:
    memory = plan.memory
    scale = width / max(memory.usable_bytes, memory.peak_bytes)
    sizes = dict.fromkeys(KINDS, 0.0)
    for term in memory.terms:
        if phase in term.phases:
            sizes[kind_of(term)] += term.bytes
    bar, drawn, total = Text(f"{phase:>14} "), 0, 0.0
    for kind, colour in zip(KINDS, COLOURS, strict=True):
        total += sizes[kind]
        length = round(total * scale) - drawn
        bar.append("█" * length, colour)
        drawn += length
    over = memory.peaks[phase] > memory.usable_bytes
    bar.append("░" * max(round(memory.usable_bytes * scale) - drawn, 0), "dim")
    bar.append(f" {memory.peaks[phase] / GIB:.1f} of {memory.usable_bytes / GIB:.1f} GiB", "red" if over else "")
    return bar


def sentences(plan: Plan) -> list[str]:
    """The answers, one a line."""
    memory, d = plan.memory, plan.memory.deployment
    largest = max((t for t in memory.terms if memory.peak_phase in t.phases), key=lambda term: term.bytes)
    found = [
        f"peak: {memory.peak_bytes / GIB:.1f} GiB in {memory.peak_phase}; "
        f"headroom {memory.headroom_bytes / GIB:.1f} GiB"
    ]
    shrink = f"; {largest.shrink} would shrink it" if largest.shrink else ""
    found.append(f"largest term: {largest.name}, {largest.gib:.1f} GiB{shrink}")
    found += [f"problem: {problem}" for problem in memory.problems]
    if plan.change is not None:
        found.append(f"smallest change that fits: {plan.change.what}")
    elif not plan.fits:
        found.append("no single change of fraction, chunk, context, cache, recipe or GPU count makes it fit")
    found.append(
        f"KV cache: {memory.kv_tokens:,} tokens at {memory.kv.token_bytes:,.0f} bytes ({memory.limits.kv_dtype}); "
        f"{plan.max_concurrency:,} sequences of {d.context:,} tokens, or one of {plan.max_context:,}"
    )
    found.append(f"its pool: {memory.pool}")
    found.append(_chunk(plan))
    if plan.smallest_gpus is not None:
        found.append(
            f"smallest number of {d.gpu.name} that holds one whole context: {plan.smallest_gpus.deployment.gpus}"
        )
    for buy in plan.buys:
        found.append(f"{buy['change']} would give {buy['kv_tokens']:,} tokens of KV ({buy['kv_tokens_more']:+,})")
    found += _speed_and_cost(plan)
    found += [f"warning: {warning}" for warning in plan.warnings]
    found.append(f"flags: {' '.join(plan.engine_flags)}")
    return found


def _chunk(plan: Plan) -> str:
    """The prefill chunk by the numbers: what it takes, what is there for it, and where it stops fitting."""
    memory = plan.memory
    grows = sum(term.bytes for term in memory.terms if term.phases == (PREFILL,))
    each = grows / max(memory.prefill_tokens, 1) * 1024 / 2**20
    text = f"chunk: {memory.limits.chunk:,} tokens take {grows / GIB:.1f} GiB in prefill ({each:.0f} MiB per 1,024)"
    if not memory.deployment.facts.profiles:
        free = (1 - memory.limits.fraction) * memory.usable_bytes / GIB
        text += f" of about {free:.1f} GiB outside the static fraction {memory.limits.fraction:g}"
    return f"{text}; " + (f"the largest that fits as it is: {plan.max_chunk:,}" if plan.max_chunk else "none fits")


def _speed_and_cost(plan: Plan) -> list[str]:
    speed, found = plan.throughput, []
    if speed:
        factors = speed["efficiency"]
        low, high = factors["decode_spread"]
        basis = f"observed/predicted {low:g} to {high:g}" if factors["fitted"] else "NOT fitted for this engine and GPU"
        load = f"{speed['concurrency']} x {speed['input_tokens']:,} in / {speed['output_tokens']:,} out"
        slow = " to ".join(f"{ms:.1f}" for ms in speed["tpot_ms_range"])
        found.append(
            f"speed (estimate: {speed['model']}; {basis}): at {load}: TTFT {speed['ttft_ms']:,.0f} ms, "
            f"TPOT {speed['tpot_ms']:.1f} ms ({slow}), {speed['output_tokens_per_s']:,.0f} output tokens/s, "
            f"{speed['requests_per_s']:.3f} requests/s"
        )
        if "at_slo" in speed:
            slo = speed["at_slo"]
            found.append(f"within the SLO: {slo['concurrency']} in flight, {slo['requests_per_s']:.3f} requests/s")
        else:
            found.append("no load meets the SLO by this estimate")
    if plan.cost:
        usd = plan.cost["usd_per_million"]
        found.append(
            f"cost at {plan.cost['utilisation']:.0%} utilisation, $ per 1M tokens: input {usd['input']:.2f}, cached "
            f"{usd['cached_input']:.3f}, output {usd['output']:.2f}, visible output {usd['visible_output']:.2f}"
        )
        lengths = plan.cost["usd_per_request_by_output_tokens"].items()
        found.append(f"dollars a request by output tokens: {', '.join(f'{int(n):,}: {usd:.4f}' for n, usd in lengths)}")
        if "breakeven" in plan.cost:
            even = plan.cost["breakeven"]
            found.append(
                f"break-even against ${even['api_usd_per_million']:g} per 1M: {even['output_tokens_per_month']:,} "
                f"output tokens a month, {even['share_of_capacity']:.0%} of capacity"
            )
    if plan.traffic is not None:
        t = plan.traffic
        found.append(
            f"traffic: {t['completed']:,} of {t['requests']:,} requests, TTFT p95 {t['ttft_ms']['p95']:,.0f} ms, "
            f"TPOT p95 {t['tpot_ms']['p95']:.1f} ms, {t['preemptions']:,} preemptions, KV use {t['kv_use_mean']:.0%} "
            f"mean {t['kv_use_peak']:.0%} peak; replicas for the SLO: {t['replicas_for_slo'] or 'no number helps'}"
        )
    return found


def _verdict(plan: Plan) -> str:
    if not plan.fits:
        return f"no: {plan.change.what if plan.change else 'nothing helps'}"
    return "yes" if plan.max_concurrency else f"starts, holds no {plan.memory.deployment.context:,} tokens"


def show_comparison(plans: list[Plan], console: Console | None = None) -> None:
    """One row a machine."""
    console = console or Console()
    if not console.is_terminal:
        console.width = 140
    table = Table(
        title=f"{plans[0].model.name}, {plans[0].memory.deployment.engine}", title_justify="left", pad_edge=False
    )
    columns = (
        "GPUs",
        "fits",
        "weights",
        "KV GiB",
        "peak",
        "headroom",
        "KV tokens",
        "max context",
        "tok/s",
        "TPOT ms",
        "$/1M out",
    )
    for name in columns:
        table.add_column(name, justify="left" if name in ("GPUs", "fits") else "right")
    for plan in plans:
        memory, d = plan.memory, plan.memory.deployment
        speed, usd = plan.throughput, plan.cost.get("usd_per_million", {})
        table.add_row(
            f"{d.gpus} x {d.gpu.name}",
            _verdict(plan),
            f"{memory.weights_bytes / GIB:.1f}",
            f"{memory.kv_bytes / GIB:.1f}",
            f"{memory.peak_bytes / GIB:.1f}",
            f"{memory.headroom_bytes / GIB:.1f}",
            f"{memory.kv_tokens:,}",
            f"{plan.max_context:,}",
            f"{speed['output_tokens_per_s']:,.0f}" if speed else "-",
            f"{speed['tpot_ms']:.1f}" if speed else "-",
            f"{usd['output']:.2f}" if usd else "-",
        )
    console.print(table)
