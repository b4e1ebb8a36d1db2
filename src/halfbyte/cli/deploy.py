"""`halfbyte deploy`"""

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halfbyte.cli.output import Json, command, print_json, print_table, say, say_block
from halfbyte.errors import UsageError, said

if TYPE_CHECKING:
    from halfbyte.deploy.deployment import Deployed


@command
def deploy(
    target: Annotated[Path | None, typer.Argument(help="Checkpoint folder, with its gate.json.")] = None,
    plan: Annotated[Path | None, typer.Option(help="plan.json, as halfbyte plan -o writes it.")] = None,
    platform: Annotated[Path | None, typer.Option(help="platform.yaml: pools, tenants, models, prices.")] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="FOLDER=PLAN: one more of the platform's models, or one's plan for a GPU it falls back to."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write.")] = None,
    no_gate: Annotated[
        bool, typer.Option("--no-gate", help="Ask for no decision of the gate; the manifests say so.")
    ] = False,
    example: Annotated[bool, typer.Option("--example", help="Print a commented platform.yaml.")] = False,
    check: Annotated[Path | None, typer.Option(help="Judge the manifests of a folder, edited or not.")] = None,
    diff: Annotated[Path | None, typer.Option(help="Say what writing would change in this folder.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why a replica would wait, and for what.")] = False,
    simulate: Annotated[
        float | None, typer.Option(help="Simulate a day of so many requests: waits, GPU hours and money, by fleet.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the simulated day as this SVG.")] = None,
    json_output: Json = False,
) -> None:
    """Write Kubernetes manifests of a served checkpoint: Kueue, serving, doors, autoscaling, cost. Needs no cluster.

    Exits with 1 if a check fails, or --diff finds a difference.
    Example: halfbyte deploy ./glm-nvfp4 --plan plan.json --platform platform.yaml -o k8s
    """
    if example:
        say_block((resources.files("halfbyte.deploy") / "example.yaml").read_text("utf-8"))
        return
    if check is not None:
        from halfbyte.deploy.reading import check as run_check

        objects = run_check(check)
        print_json({"ok": True, "objects": objects}) if json_output else say(f"ok: {objects} objects")
        return
    if target is None:
        raise UsageError(said("wanted TARGET with {plan} and {platform}, or {check} DIR, or {example}"))
    if output is None and diff is None and simulate is None and not explain:
        raise UsageError(said("wanted {output} DIR, {diff} DIR, {explain} or {simulate} REQUESTS"))
    from halfbyte.deploy.deployment import deploy as run
    from halfbyte.deploy.deployment import difference
    from halfbyte.deploy.options import DeployOptions

    result = run(target, output, DeployOptions(plan=plan, platform=platform, also=tuple(also or ()), no_gate=no_gate))
    if diff is not None:
        if not diff.is_dir():
            raise UsageError(said("{diff} {folder}: no such folder", folder=str(diff)))
        changes = difference(result.files, diff)
        print_json({"equal": not changes, "diff": changes}) if json_output else say_block(changes)
        raise typer.Exit(1 if changes else 0)
    if simulate is not None:
        _simulate(result, platform, simulate, plot, json_output)
    elif explain:
        _explain(result, platform, json_output)
    elif json_output:
        print_json(result.as_json())
    else:
        _show(result)


def _show(result: "Deployed") -> None:
    rows = [
        [
            one.name,
            f"{one.min_replicas} to {one.max_replicas}",
            f"{one.gpus} on {one.nodes}",
            ", then ".join(pool.name for pool in one.pools),
            f"{one.cold_start_s} s",
            "pass" if one.decision is not None else "not judged",
        ]
        for one in result.served
    ]
    print_table("deployed", ["model", "replicas", "GPUs on nodes", "pool", "cold start", "gate"], rows)
    say(
        f"wrote {result.folder}: {len(result.files)} files, {result.objects} objects; {result.folder}/README.md is next"
    )


def _explain(result: "Deployed", platform: Path | None, json_output: bool) -> None:
    from halfbyte.deploy.explain import explain as run
    from halfbyte.deploy.platform import Platform

    assert platform is not None  # without one there is no result
    steps = list(run(Platform.from_file(platform), result.served))
    if json_output:
        print_json({"replicas": [step.as_json() for step in steps]})
        return
    rows = [
        [step.model, str(step.replica), step.flavor or "", str(step.own), str(step.borrowed), step.waits or "admitted"]
        for step in steps
    ]
    columns = ["model", "replica", "flavor", "own GPUs", "borrowed", "Kueue"]
    print_table("replicas, one after the other", columns, rows)


def _simulate(result: "Deployed", platform: Path | None, requests: float, plot: Path | None, json_output: bool) -> None:
    from halfbyte.deploy.platform import Platform
    from halfbyte.deploy.simulation.simulated import simulated

    assert platform is not None  # without one there is no result
    one, outcomes = result.served[0], simulated(Platform.from_file(platform), result.served[0], requests, plot)
    if json_output:
        print_json({"model": one.name, "requests": requests, "fleets": [outcome.as_json() for outcome in outcomes]})
        return
    rows = [
        [
            outcome.name,
            f"{outcome.in_time:.2%}",
            f"{outcome.p99_wait_s:.1f} s",
            f"{outcome.gpu_hours:,.0f}",
            f"{outcome.usd:,.0f} $",
            str(outcome.peak_replicas),
            f"{outcome.gated_s:.0f} s",
        ]
        for outcome in outcomes
    ]
    columns = ["replicas", "in time", "p99 wait", "GPU hours", "cost", "peak", "gated"]
    print_table(f"a day of {requests:,.0f} requests to {one.name}", columns, rows)
