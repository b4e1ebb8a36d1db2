"""Kinds of Kubernetes itself that stand in a folder of manifests.

Every field of the API is named; what is never written here is `Free`: allowed, its content not judged.
Source: Kubernetes 1.36 (OpenAPI of these groups).
"""

from typing import Annotated, Literal

from pydantic import Field

from halfbyte.deploy.kinds.base import Free, LabelSelector, ObjectMeta, Shape
from halfbyte.deploy.kinds.generated.pods import PodTemplate
from halfbyte.deploy.kinds.generated.pods import Spec as ClaimSpec
from halfbyte.deploy.kinds.scalars import IntOrString, LabelKey, LabelValue

Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Protocol = Literal["TCP", "UDP", "SCTP"]


class Namespace(Shape):
    apiVersion: Literal["v1"]
    kind: Literal["Namespace"]
    metadata: ObjectMeta
    spec: Free = None
    status: Free = None


class ServiceAccount(Shape):
    apiVersion: Literal["v1"]
    kind: Literal["ServiceAccount"]
    metadata: ObjectMeta
    automountServiceAccountToken: bool | None = None
    imagePullSecrets: Free = None
    secrets: Free = None


class ConfigMap(Shape):
    apiVersion: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: ObjectMeta
    data: dict[str, str] | None = None
    binaryData: dict[str, str] | None = None
    immutable: bool | None = None


class Secret(Shape):
    """Never written: a platform brings its own. Read, so that one in plain text can be refused."""

    apiVersion: Literal["v1"]
    kind: Literal["Secret"]
    metadata: ObjectMeta
    data: dict[str, str] | None = None
    stringData: dict[str, str] | None = None
    immutable: bool | None = None
    type: str | None = None


class PersistentVolumeClaim(Shape):
    apiVersion: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: ObjectMeta
    spec: ClaimSpec
    status: Free = None


class ServicePort(Shape):
    port: PortNumber
    name: str | None = None
    targetPort: IntOrString | None = None
    protocol: Protocol | None = None
    appProtocol: str | None = None
    nodePort: Natural | None = None


class ServiceSpec(Shape):
    ports: list[ServicePort] | None = None
    selector: dict[LabelKey, LabelValue] | None = None
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] | None = None
    clusterIP: str | None = None
    publishNotReadyAddresses: bool | None = None
    sessionAffinity: Literal["None", "ClientIP"] | None = None
    allocateLoadBalancerNodePorts: Free = None
    clusterIPs: Free = None
    externalIPs: Free = None
    externalName: Free = None
    externalTrafficPolicy: Free = None
    healthCheckNodePort: Free = None
    internalTrafficPolicy: Free = None
    ipFamilies: Free = None
    ipFamilyPolicy: Free = None
    loadBalancerClass: Free = None
    loadBalancerIP: Free = None
    loadBalancerSourceRanges: Free = None
    sessionAffinityConfig: Free = None
    trafficDistribution: Free = None


class Service(Shape):
    apiVersion: Literal["v1"]
    kind: Literal["Service"]
    metadata: ObjectMeta
    spec: ServiceSpec
    status: Free = None


class RollingUpdate(Shape):
    maxSurge: IntOrString | None = None
    maxUnavailable: IntOrString | None = None


class DeploymentStrategy(Shape):
    type: Literal["RollingUpdate", "Recreate"] | None = None
    rollingUpdate: RollingUpdate | None = None


class DeploymentSpec(Shape):
    selector: LabelSelector
    template: PodTemplate
    replicas: Natural | None = None
    strategy: DeploymentStrategy | None = None
    progressDeadlineSeconds: Positive | None = None
    minReadySeconds: Natural | None = None
    revisionHistoryLimit: Natural | None = None
    paused: bool | None = None


class Deployment(Shape):
    apiVersion: Literal["apps/v1"]
    kind: Literal["Deployment"]
    metadata: ObjectMeta
    spec: DeploymentSpec
    status: Free = None


class JobSpec(Shape):
    template: PodTemplate
    completions: Natural | None = None
    parallelism: Natural | None = None
    completionMode: Literal["NonIndexed", "Indexed"] | None = None
    backoffLimit: Natural | None = None
    backoffLimitPerIndex: Natural | None = None
    maxFailedIndexes: Natural | None = None
    activeDeadlineSeconds: Positive | None = None
    ttlSecondsAfterFinished: Natural | None = None
    suspend: bool | None = None
    podReplacementPolicy: Literal["Failed", "TerminatingOrFailed"] | None = None
    managedBy: Free = None
    manualSelector: Free = None
    podFailurePolicy: Free = None
    scheduling: Free = None
    selector: Free = None
    successPolicy: Free = None


class Job(Shape):
    apiVersion: Literal["batch/v1"]
    kind: Literal["Job"]
    metadata: ObjectMeta
    spec: JobSpec
    status: Free = None


class JobTemplate(Shape):
    spec: JobSpec
    metadata: ObjectMeta | None = None


class CronJobSpec(Shape):
    schedule: str
    jobTemplate: JobTemplate
    timeZone: str | None = None
    concurrencyPolicy: Literal["Allow", "Forbid", "Replace"] | None = None
    startingDeadlineSeconds: Natural | None = None
    suspend: bool | None = None
    successfulJobsHistoryLimit: Natural | None = None
    failedJobsHistoryLimit: Natural | None = None


class CronJob(Shape):
    apiVersion: Literal["batch/v1"]
    kind: Literal["CronJob"]
    metadata: ObjectMeta
    spec: CronJobSpec
    status: Free = None


class PodDisruptionBudgetSpec(Shape):
    selector: LabelSelector
    minAvailable: IntOrString | None = None
    maxUnavailable: IntOrString | None = None
    unhealthyPodEvictionPolicy: Literal["IfHealthyBudget", "AlwaysAllow"] | None = None


class PodDisruptionBudget(Shape):
    apiVersion: Literal["policy/v1"]
    kind: Literal["PodDisruptionBudget"]
    metadata: ObjectMeta
    spec: PodDisruptionBudgetSpec
    status: Free = None


class AddressBlock(Shape):
    cidr: str
    without: Annotated[list[str] | None, Field(alias="except")] = None


class NetworkPeer(Shape):
    podSelector: LabelSelector | None = None
    namespaceSelector: LabelSelector | None = None
    ipBlock: AddressBlock | None = None


class NetworkPort(Shape):
    port: IntOrString | None = None
    protocol: Protocol | None = None
    endPort: PortNumber | None = None


class Ingress(Shape):
    sources: Annotated[list[NetworkPeer] | None, Field(alias="from")] = None
    ports: list[NetworkPort] | None = None


class Egress(Shape):
    to: list[NetworkPeer] | None = None
    ports: list[NetworkPort] | None = None


class NetworkPolicySpec(Shape):
    podSelector: LabelSelector
    policyTypes: list[Literal["Ingress", "Egress"]] | None = None
    ingress: list[Ingress] | None = None
    egress: list[Egress] | None = None


class NetworkPolicy(Shape):
    apiVersion: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: ObjectMeta
    spec: NetworkPolicySpec


class PolicyRule(Shape):
    verbs: Annotated[list[str], Field(min_length=1)]
    apiGroups: list[str] | None = None
    resources: list[str] | None = None
    resourceNames: list[str] | None = None
    nonResourceURLs: list[str] | None = None


class Role(Shape):
    apiVersion: Literal["rbac.authorization.k8s.io/v1"]
    kind: Literal["Role"]
    metadata: ObjectMeta
    rules: list[PolicyRule] | None = None


class RoleRef(Shape):
    apiGroup: Literal["rbac.authorization.k8s.io"]
    kind: Literal["Role", "ClusterRole"]
    name: str


class Subject(Shape):
    kind: Literal["ServiceAccount", "User", "Group"]
    name: str
    namespace: str | None = None
    apiGroup: str | None = None


class RoleBinding(Shape):
    apiVersion: Literal["rbac.authorization.k8s.io/v1"]
    kind: Literal["RoleBinding"]
    metadata: ObjectMeta
    roleRef: RoleRef
    subjects: list[Subject] | None = None
