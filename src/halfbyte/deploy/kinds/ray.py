"""KubeRay's RayJob. No published definition of it is at hand where the others are generated, so it is written here.

Every field of the API is named; what is never written here is `Free`: allowed, its content not judged.
Source: KubeRay 1.7.0, API ray.io/v1 (ray-operator/apis/ray/v1, rayjob_types.go and raycluster_types.go).
`rayStartParams` may be absent there, but not in 1.2, the oldest that we name.
"""

from typing import Annotated, Literal

from pydantic import Field

from halfbyte.deploy.kinds.base import Free, ObjectMeta, Shape
from halfbyte.deploy.kinds.core import Natural, Positive
from halfbyte.deploy.kinds.generated.pods import PodTemplate

GroupName = Annotated[str, Field(min_length=1, max_length=63)]


class HeadGroup(Shape):
    rayStartParams: dict[str, str]
    template: PodTemplate
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None
    enableIngress: bool | None = None
    headService: Free = None
    ingressOptions: Free = None
    labels: Free = None
    resources: Free = None


class WorkerGroup(Shape):
    groupName: GroupName
    rayStartParams: dict[str, str]
    template: PodTemplate
    minReplicas: Natural | None = None
    maxReplicas: Natural | None = None
    replicas: Natural | None = None
    numOfHosts: Positive | None = None
    idleTimeoutSeconds: Free = None
    labels: Free = None
    priority: Free = None
    resources: Free = None
    scaleStrategy: Free = None
    suspend: Free = None


class RayCluster(Shape):
    """The `spec` of one, as a job has it."""

    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] | None = None
    rayVersion: str | None = None
    enableInTreeAutoscaling: bool | None = None
    suspend: bool | None = None
    authOptions: Free = None
    autoscalerOptions: Free = None
    gcsFaultToleranceOptions: Free = None
    headServiceAnnotations: Free = None
    historyServerOptions: Free = None
    managedBy: Free = None
    networkPolicy: Free = None
    tlsOptions: Free = None
    upgradeStrategy: Free = None


class RayJobSpec(Shape):
    rayClusterSpec: RayCluster | None = None
    clusterSelector: dict[str, str] | None = None
    entrypoint: str | None = None
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] | None = None
    submitterPodTemplate: PodTemplate | None = None
    shutdownAfterJobFinishes: bool | None = None
    suspend: bool | None = None
    backoffLimit: Natural | None = None
    ttlSecondsAfterFinished: Natural | None = None
    activeDeadlineSeconds: Positive | None = None
    preRunningDeadlineSeconds: Positive | None = None
    deletionStrategy: Free = None
    entrypointNumCpus: Free = None
    entrypointNumGpus: Free = None
    entrypointResources: Free = None
    jobId: Free = None
    managedBy: Free = None
    metadata: Free = None
    runtimeEnvYAML: Free = None
    submitterConfig: Free = None


class RayJob(Shape):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: ObjectMeta
    spec: RayJobSpec
    status: Free = None
