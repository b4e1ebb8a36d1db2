"""KEDA: replicas by tokens that wait at the door, and by requests that are in the engines.

Tokens that wait say that more is needed, but are none as soon as there is enough; requests in the engines say how much
is needed to stay. The larger counts.

Each query is a sum, as the scaler takes one series only, and a missing series is an error, not 0: where Prometheus is
silent, the fallback keeps what is there. A replica is taken away slowly, as another takes minutes to start.
"""

from collections.abc import Iterator, Sequence

from halfbyte.deploy.facts import Served
from halfbyte.deploy.frontdoor import door_name
from halfbyte.deploy.objects import Document, labels, metadata
from halfbyte.deploy.platform import Platform
from halfbyte.deploy.serving import ENGINE, scale_target

POLL_S = 15
STABLE_COLD_STARTS = 2
MOST_STABLE_S = 3600
"""The API's own limit of a stabilisation window."""
FILLED = 0.8
"""Of the requests at which a replica holds its objective: beyond it another is wanted, as it takes a cold start."""


def autoscaling(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    for one in served:
        yield _scaled_object(platform, one)


def waiting_tokens(platform: Platform, one: Served) -> str:
    """PromQL: tokens reserved by requests that wait at a model's doors."""
    return f'sum(halfbyte_queue_tokens{{namespace="{platform.namespace}",service="{door_name(one)}"}})'


def engine_requests(platform: Platform, one: Served) -> str:
    """PromQL: requests that run or wait in a model's engines."""
    metrics = one.command.engine.metrics
    chosen = f'{{namespace="{platform.namespace}",{metrics.model}="{one.name}"}}'
    return f"sum({metrics.running}{chosen}) + sum({metrics.waiting}{chosen})"


def waiting_threshold(platform: Platform, one: Served) -> int:
    """Tokens that may wait for each replica: what it takes in within the objective."""
    return max(1, round(one.waiting_tokens * platform.objectives.queue_seconds))


def running_per_replica(one: Served) -> int:
    """Requests in each engine beyond which another replica is wanted."""
    throughput, replicas = one.plan.throughput, max(1, one.plan.deployment.replicas)
    most = throughput.at_slo.concurrency if throughput.at_slo is not None else one.plan.max_concurrency
    return max(1, int(FILLED * most / replicas))


def stable_s(one: Served) -> int:
    """Seconds that load must stay low before a replica goes."""
    return min(MOST_STABLE_S, STABLE_COLD_STARTS * one.cold_start_s)


def _scaled_object(platform: Platform, one: Served) -> Document:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(one.object, platform.namespace, labels(one.object, ENGINE, one.name)),
        "spec": {
            "scaleTargetRef": scale_target(platform, one),
            "minReplicaCount": one.min_replicas,
            "maxReplicaCount": one.max_replicas,
            "pollingInterval": POLL_S,
            "cooldownPeriod": stable_s(one),
            "fallback": {"failureThreshold": 4, "replicas": one.min_replicas, "behavior": "currentReplicasIfHigher"},
            "advanced": {
                "horizontalPodAutoscalerConfig": {
                    "behavior": {
                        "scaleUp": {
                            "stabilizationWindowSeconds": 2 * POLL_S,
                            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 4 * POLL_S}],
                        },
                        "scaleDown": {
                            "stabilizationWindowSeconds": stable_s(one),
                            "policies": [{"type": "Pods", "value": 1, "periodSeconds": min(1800, stable_s(one))}],
                        },
                    }
                }
            },
            "triggers": [
                _trigger(platform, "tokens-waiting", waiting_tokens(platform, one), waiting_threshold(platform, one)),
                _trigger(platform, "engine-requests", engine_requests(platform, one), running_per_replica(one)),
            ],
        },
    }


def _trigger(platform: Platform, name: str, query: str, threshold: int) -> Document:
    return {
        "type": "prometheus",
        "name": name,
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": platform.cluster.prometheus,
            "query": query,
            "threshold": str(threshold),
            "ignoreNullValues": "false",
        },
    }
