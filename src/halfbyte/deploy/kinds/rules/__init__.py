"""What is wrong inside one object whose shape is right: rules that its definition or its controller would enforce.

Rules between objects are not here.
"""

from collections.abc import Callable, Iterator
from typing import Any

from halfbyte.deploy.kinds import said
from halfbyte.deploy.kinds.rules import envoy, monitoring, network, pods, queues, ray, scaling, secrets, workloads

Document = dict[str, Any]
Rules = Callable[[Document], Iterator[str]]

_RULES: dict[str, tuple[Rules, ...]] = {
    "ClusterQueue": (queues.cluster_queue,),
    "Cohort": (queues.cohort,),
    "ResourceFlavor": (queues.flavor,),
    "Topology": (queues.topology,),
    "LeaderWorkerSet": (workloads.leader_worker_set, pods.templates, secrets.variables),
    "LLMInferenceService": (secrets.variables,),
    "Deployment": (workloads.deployment, pods.templates, secrets.variables),
    "Job": (workloads.job, pods.templates, secrets.variables),
    "CronJob": (workloads.cron_job, pods.templates, secrets.variables),
    "RayJob": (ray.ray_job, pods.templates, secrets.variables),
    "PodDisruptionBudget": (workloads.disruption_budget,),
    "ScaledObject": (scaling.scaled_object,),
    "Service": (network.service,),
    "NetworkPolicy": (network.policy,),
    "HTTPRoute": (network.route,),
    "InferencePool": (network.inference_pool,),
    "AIGatewayRoute": (envoy.ai_route,),
    "Backend": (envoy.backend,),
    "RoleBinding": (network.role_binding,),
    "ConfigMap": (secrets.config_map,),
    "Secret": (secrets.secret,),
    "PrometheusRule": (monitoring.prometheus_rule,),
}


def object_faults(document: Document) -> Iterator[str]:
    """Every fault, each in one line that begins with kind and name. document: of a shape that `check_shape` passes."""
    for rules in _RULES.get(str(document.get("kind")), ()):
        for fault in rules(document):
            yield f"{said(document)}: {fault}"
