"""A plan on the terminal: a summary and a stacked bar; with `--terms` the sum as a table, and all in sentences."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from halfbyte.engines.server import GIB
from halfbyte.plan.result import Plan
from halfbyte.plan.summary import summary
from halfbyte.plan.terms import PHASES, PREFILL, Term
from halfbyte.text import line

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red", "white")
KINDS = ("weights", "KV cache", "forward buffers", "graphs", "process", "reserve", "free")
SMALL_GIB = 0.005
NARROW, WIDE = 80, 140
"""Columns where output is no terminal: of the summary, and of the sum."""

AUDIT = "--terms shows every term with its formula and source"


def show(plan: Plan, console: Console | None = None, *, terms: bool = False) -> None:
    """The answers in short; with `terms` the whole sum, line by line, and every sentence."""
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDE if terms else NARROW
    console.print(line(_heading(plan)), highlight=False, markup=False, soft_wrap=True)
    if terms:
        console.print(_terms(plan))
    else:
        console.print(_short(plan))
    for phase in PHASES:
        console.print(_bar(plan, phase, max(min(console.width, WIDE) - 36, 20)))
    kinds = zip(KINDS, (*COLOURS[:6], "dim"), strict=True)
    console.print(Text.assemble(*((f" {kind} ", colour) for kind, colour in kinds)), soft_wrap=True)
    said = sentences(plan) if terms else [*(f"warning: {one}" for one in plan.warnings), _flags(plan), AUDIT]
    for sentence in said:
        console.print(line(sentence), highlight=False, markup=False, soft_wrap=True)  # flags are there to be copied


def _short(plan: Plan) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for asked, answer in summary(plan):
        table.add_row(Text(asked), Text(line(answer)))
    return table


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
        "process context": "process",
        "communicators": "process",
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
    return [*found, _flags(plan)]


def _flags(plan: Plan) -> str:
    return f"flags: {' '.join(plan.engine_flags)}"


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
    return "yes" if plan.max_concurrency else "not one context"


def show_comparison(plans: list[Plan], console: Console | None = None) -> None:
    """One row a machine."""
    console = console or Console()
    if not console.is_terminal:
        console.width = NARROW
    console.print(
        line(f"{plans[0].model.name}, {plans[0].memory.deployment.engine}; GiB of one GPU"),
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    columns = ("GPUs", "fits", "weights", "KV", "peak", "free", "KV tokens", "longest", "tok/s", "TPOT", "$/1M")
    for name in columns:
        table.add_column(
            name, justify="left" if name in ("GPUs", "fits") else "right", overflow="fold", no_wrap=name != "fits"
        )
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
            short_count(memory.kv_tokens),
            short_count(plan.max_context),
            short_count(speed["output_tokens_per_s"]) if speed else "-",
            f"{speed['tpot_ms']:.1f}" if speed else "-",
            f"{usd['output']:.2f}" if usd else "-",
        )
    console.print(table)


def short_count(count: float) -> str:
    """1,234,567 as 1.23M: for tables; `--json` has every digit."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if count >= size:
            return f"{count / min(size, 1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{count:,.0f}"
