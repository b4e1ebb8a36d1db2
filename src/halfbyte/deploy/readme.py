"""README.md beside the manifests: what they are, what must be there before, in which order, and what to do by hand."""

import shlex
from collections.abc import Sequence

from halfbyte.deploy.facts import Served
from halfbyte.deploy.frontdoor import SCRAPE_SECRET, door_name
from halfbyte.deploy.objects import MODEL_LABEL, SHARED_LABEL
from halfbyte.deploy.platform import Platform, Pool, Tenant

MINIMUM = (
    ("Kubernetes", "1.31", "1.35 for weights from an OCI image"),
    ("Kueue", "0.17", "API v1beta2; `manageJobsWithoutQueueName: false`; the namespace under its control"),
    ("LeaderWorkerSet", "0.7", "where a replica spreads over nodes"),
    ("KEDA", "2.18", "`fallback.behavior`"),
    ("Prometheus operator", "0.75", "rules, monitors"),
    ("kube-state-metrics", "2.10", "GPUs held, restarts, Jobs"),
)


RAY_MINIMUM = (
    "KubeRay",
    "1.2",
    "RayJob with `backoffLimit` (Kueue asks for 1.1); its operator needs no rights beyond its own, and these pods none",
)


ENVOY_MINIMUM = (
    ("Envoy AI Gateway", "0.7", "API v1beta1; it wants Kubernetes 1.32 and Gateway API 1.5"),
    (
        "Envoy Gateway",
        "1.8",
        "`extensionApis.enableBackend: true`; your Gateway's ClientTrafficPolicy with `connection.bufferLimit: 50Mi`: "
        "32 KiB hold no prompt",
    ),
)


def readme(platform: Platform, served: Sequence[Served], files: Sequence[str]) -> str:
    lines = ["# What stands here", ""]
    lines += ["| model | replicas | GPUs each | pool | gate | cold start | drain |", "|---|---|---|---|---|---|---|"]
    for one in served:
        gate = "**not judged**" if one.decision is None else f"pass by policy {one.decision.policy.name}"
        lines.append(
            f"| {one.name} | {one.min_replicas} to {one.max_replicas} | {one.gpus} on {one.nodes} node(s) | "
            f"{', then '.join(map(_shown, one.pools))} | {gate} | "
            f"{one.cold_start_s} s | {one.drain_s} s |"
        )
    lines += ["", "## Before", "", "| needs | from | for |", "|---|---|---|"]
    needed = (*MINIMUM, *((RAY_MINIMUM,) if _on_ray(platform) else ()))
    needed += ENVOY_MINIMUM if platform.options.gateway == "envoy-ai" else ()
    lines += [f"| {name} | {version} | {why} |" for name, version, why in needed]
    lines += ["", *_secrets(platform), "", "## Apply, in this order", "", "```sh"]
    lines += [f"kubectl apply --server-side -f {name}" for name in files]
    lines += [
        "```",
        "",
        "or all of it: `kubectl apply --server-side -k .`",
        "",
        *_flags(served),
        "",
        *_tenants(platform, served),
    ]
    lines += ["", *_jobs(platform), "", *_cost(), "", *_changes(platform), *map(_falls_back, _roaming(served))]
    return "\n".join(lines) + "\n"


def _secrets(platform: Platform) -> list[str]:
    return [
        "Two Secrets are yours to make; nothing here holds a password:",
        "",
        "```sh",
        f"kubectl -n {platform.namespace} create secret generic {platform.database.secret} "
        f"--from-literal={platform.database.key}=postgresql://USER:PASSWORD@HOST/ledger",
        f"kubectl -n {platform.namespace} create secret generic {SCRAPE_SECRET} "
        '--from-literal=key="$(openssl rand -hex 32)"',
        "```",
    ]


def _flags(served: Sequence[Served]) -> list[str]:
    lines = ["## Why these flags", ""]
    for one in served:
        for place in one.places:
            if place is one.places[0]:
                lines += [f"{one.name}:", "", *(f"- {note}" for note in place.command.notes), ""]
            elif place.command.words != one.command.words:
                lines += [f"{one.name} on {place.pool.gpu}, where its container finds one:", ""]
                lines += [*(f"- {note}" for note in place.command.notes), ""]
    return lines[:-1]


def _shown(pool: Pool) -> str:
    return f"{pool.name} ({pool.nodes} x {pool.gpus_per_node} {pool.gpu})"


def _roaming(served: Sequence[Served]) -> list[Served]:
    return [one for one in served if len(one.pools) > 1]


def _falls_back(one: Served) -> str:
    others = " and ".join(pool.name for pool in one.pools[1:])
    return (
        f"- A replica of {one.name} begins in {one.pool.name} where there is room without displacing batch work, then "
        f"in {others}; one that runs stays. `model:halfbyte_pool_cost_usd:per_hour` takes each at its pool's price "
        "if Kueue tells (`metrics.enableClusterQueueResources: true` in its configuration), else all at the price of "
        f"{one.pool.name}. The autoscaler's thresholds are those of {one.pool.name}'s plan."
    )


def _tenants(platform: Platform, served: Sequence[Served]) -> list[str]:
    door = door_name(served[0])
    lines = ["## Tenants", "", "Each key is shown once. On a door:", "", "```sh"]
    for tenant in platform.tenants:
        words = " ".join(map(shlex.quote, _add(tenant)))
        lines.append(
            f"kubectl -n {platform.namespace} exec deploy/{door} -- sh -c '{words} --state \"$HALFBYTE_LEDGER_URL\"'"
        )
    return [*lines, "```"]


def _add(tenant: Tenant) -> list[str]:
    words = ["halfbyte", "tenants", "add", tenant.name, "--models", ",".join(tenant.models)]
    for name, value in tenant.limits.model_dump(exclude_none=True, exclude={"models"}).items():
        if value:
            words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return words


def _on_ray(platform: Platform) -> bool:
    return platform.options.quantize == "ray-job"


def _jobs(platform: Platform) -> list[str]:
    how = "a RayJob" if _on_ray(platform) else "then finish, which joins its parts"
    lines = [
        "## Jobs",
        "",
        f"quantize ({how}), compare, evaluate and gate wait in the queue `batch-held`, and "
        "work in the claim `halfbyte-work`, "
        "where their sources lie (MODEL-source, MODEL, data.jsonl, suite.jsonl). To let one run:",
        "",
        "```sh",
        "kubectl label job/NAME kueue.x-k8s.io/queue-name=batch --overwrite",
        "```",
    ]
    if _on_ray(platform):
        lines += [
            "",
            "quantize is `rayjob/NAME`: Kueue lets it run by `spec.suspend`, KubeRay makes its cluster and takes it "
            f"down. The operator is let in from namespace `{platform.cluster.kuberay_namespace}`. A run that failed "
            "goes on where it was when its RayJob is deleted and applied again.",
        ]
    return lines


def _cost() -> list[str]:
    return [
        "## Cost",
        "",
        f"OpenCost: set `INFERENCE_MODEL_LABEL={MODEL_LABEL}` and share what carries `{SHARED_LABEL}`. Its figure for "
        "each model stands beside ours in `model:halfbyte_opencost_difference:ratio`. Ours is exact to the token: "
        "`halfbyte usage --state ... --format focus`.",
        "The rules are tested: `promtool test rules rule-tests/tests.yaml`.",
    ]


def _changes(platform: Platform) -> list[str]:
    budget = platform.cluster.wait_for_pods_ready_seconds
    ready = "off" if budget is None else f"{budget} s"
    return [
        "## To know",
        "",
        "- Kueue takes replicas back by deleting pods: no PodDisruptionBudget holds it, only quota and priority do. "
        "A replica is given its grace period.",
        f"- Kueue's WaitForPodsReady is taken to be {ready}.",
        "- One replica is replaced at a time, in place: there is no quota for one more.",
        "- `halfbyte deploy --check DIR` judges edited files; `--diff DIR` says what writing again would change.",
    ]
