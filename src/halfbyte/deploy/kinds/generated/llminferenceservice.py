# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from halfbyte.deploy.kinds.base import Free, LabelSelector, ObjectMeta, Shape
from halfbyte.deploy.kinds.generated.httproute import HTTPRouteSpec
from halfbyte.deploy.kinds.generated.pods import PodTemplateSpec
from halfbyte.deploy.kinds.scalars import IntOrString, Quantity


class BaseRef(Shape):
    name: str | None = None


class EmptyDir(Shape):
    size: Quantity


class Ref(Shape):
    name: str
    path: str | None = None


class DataSource(Shape):
    apiGroup: str | None = None
    kind: str
    name: str


class DataSourceRef(Shape):
    apiGroup: str | None = None
    kind: str
    name: str
    namespace: str | None = None


class Resources(Shape):
    limits: dict[str, Quantity] | None = None
    requests: dict[str, Quantity] | None = None


class Spec(Shape):
    accessModes: list[str] | None = None
    dataSource: DataSource | None = None
    dataSourceRef: DataSourceRef | None = None
    resources: Resources | None = None
    selector: LabelSelector | None = None
    storageClassName: str | None = None
    volumeAttributesClassName: str | None = None
    volumeMode: str | None = None
    volumeName: str | None = None


class Pvc(Shape):
    ref: Ref | None = None
    spec: Spec | None = None


class FileSystem(Shape):
    emptyDir: EmptyDir | None = None
    pvc: Pvc | None = None


class Secondary(Shape):
    fileSystem: FileSystem | None = None


class KvCacheOffloading(Shape):
    cpu: Quantity
    evictionPolicy: Literal["lru", "arc"] | None = None
    secondary: list[Secondary] | None = None


class Confidential(Shape):
    enabled: bool
    resourceId: str | None = None


class Lora(Shape):
    adapters: Any | None = None
    maxAdapters: Annotated[int | None, Field(ge=1)] = None
    maxCpuAdapters: Annotated[int | None, Field(ge=1)] = None
    maxRank: Annotated[int | None, Field(ge=1)] = None


class Model(Shape):
    confidential: Confidential | None = None
    lora: Lora | None = None
    name: str | None = None
    uri: str


class Parallelism(Shape):
    data: Annotated[int | None, Field(ge=1)] = None
    dataLocal: Annotated[int | None, Field(ge=1)] = None
    dataRPCPort: Annotated[int | None, Field(ge=1, le=65535)] = None
    expert: bool | None = None
    pipeline: Annotated[int | None, Field(ge=1)] = None
    tensor: Annotated[int | None, Field(ge=1)] = None


class RolloutStrategy(Shape):
    maxSurge: IntOrString | None = None
    maxUnavailable: IntOrString | None = None


class Policy(Shape):
    periodSeconds: int
    type: str
    value: int


class ScaleDown(Shape):
    policies: list[Policy] | None = None
    selectPolicy: str | None = None
    stabilizationWindowSeconds: int | None = None
    tolerance: Quantity | None = None


class Behavior(Shape):
    scaleDown: ScaleDown | None = None
    scaleUp: ScaleDown | None = None


class HorizontalPodAutoscalerConfig(Shape):
    behavior: Behavior | None = None
    name: str | None = None


class ScalingModifiers(Shape):
    activationTarget: str | None = None
    formula: str | None = None
    metricType: Literal["AverageValue", "Value"] | None = None
    target: str | None = None


class Advanced(Shape):
    horizontalPodAutoscalerConfig: HorizontalPodAutoscalerConfig | None = None
    restoreToOriginalReplicaCount: bool | None = None
    scalingModifiers: ScalingModifiers | None = None


class Fallback(Shape):
    behavior: Literal["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"] | None = None
    failureThreshold: int
    replicas: int


class AuthenticationRef(Shape):
    kind: str | None = None
    name: str


class Trigger(Shape):
    authenticationRef: AuthenticationRef | None = None
    metadata: dict[str, str]
    metricType: str | None = None
    name: str | None = None
    type: str
    useCachedMetrics: bool | None = None


class Keda(Shape):
    advanced: Advanced | None = None
    cooldownPeriod: Annotated[int | None, Field(ge=0)] = None
    fallback: Fallback | None = None
    idleReplicaCount: Annotated[int | None, Field(ge=0)] = None
    initialCooldownPeriod: Annotated[int | None, Field(ge=0)] = None
    pollingInterval: Annotated[int | None, Field(ge=1)] = None
    triggers: Annotated[list[Trigger], Field(min_length=1)]


class Hpa(Shape):
    behavior: Behavior | None = None


class WvaKeda(Shape):
    advanced: Advanced | None = None
    cooldownPeriod: Annotated[int | None, Field(ge=0)] = None
    fallback: Fallback | None = None
    idleReplicaCount: Annotated[int | None, Field(ge=0)] = None
    initialCooldownPeriod: Annotated[int | None, Field(ge=0)] = None
    pollingInterval: Annotated[int | None, Field(ge=1)] = None


class Wva(Shape):
    hpa: Hpa | None = None
    keda: WvaKeda | None = None
    variantCost: Annotated[str | None, Field(pattern="^\\d+(\\.\\d+)?$")] = None


class Scaling(Shape):
    keda: Keda | None = None
    maxReplicas: Annotated[int, Field(ge=1)]
    minReplicas: Annotated[int | None, Field(ge=1)] = None
    wva: Wva | None = None


class Prefill(Shape):
    annotations: dict[str, str] | None = None
    kvCacheOffloading: KvCacheOffloading | None = None
    labels: dict[str, str] | None = None
    parallelism: Parallelism | None = None
    replicas: Annotated[int | None, Field(ge=0)] = None
    rolloutStrategy: RolloutStrategy | None = None
    scaling: Scaling | None = None
    template: PodTemplateSpec | None = None
    worker: PodTemplateSpec | None = None


class GatewayRef(Shape):
    name: Annotated[str | None, Field(max_length=253, min_length=1)] = None
    namespace: Annotated[str | None, Field(max_length=63, min_length=1, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = (
        None
    )
    sectionName: Annotated[
        str | None,
        Field(
            max_length=253, min_length=1, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
        ),
    ] = None


class Gateway(Shape):
    refs: list[GatewayRef] | None = None


class IngressRef(Shape):
    name: Annotated[str | None, Field(max_length=253, min_length=1)] = None
    namespace: Annotated[str | None, Field(max_length=63, min_length=1, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = (
        None
    )


class Ingress(Shape):
    refs: list[IngressRef] | None = None


class Http(Shape):
    refs: list[BaseRef] | None = None
    spec: HTTPRouteSpec | None = None


class Route(Shape):
    group: Annotated[str | None, Field(max_length=63, min_length=1, pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")] = None
    http: Http | None = None
    weight: Annotated[int | None, Field(ge=0, le=1000000)] = None


class ConfigRef(Shape):
    key: str
    name: str | None = None
    optional: bool | None = None


class Config(Shape):
    inline: dict[str, Any] | None = None
    ref: ConfigRef | None = None


class Port(Shape):
    number: Annotated[int, Field(ge=1, le=65535)]


class EndpointPickerRef(Shape):
    failureMode: Literal["FailOpen", "FailClose"] | None = None
    group: Annotated[
        str | None,
        Field(
            max_length=253,
            min_length=0,
            pattern="^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        ),
    ] = None
    kind: Annotated[str | None, Field(max_length=63, min_length=1, pattern="^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")] = (
        None
    )
    name: Annotated[str, Field(max_length=253, min_length=1)]
    port: Port | None = None


MatchLabelsAdditionalProperty = TypeAliasType(
    "MatchLabelsAdditionalProperty",
    Annotated[str, Field(max_length=63, min_length=0, pattern="^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")],
)


class Selector(Shape):
    matchLabels: dict[str, MatchLabelsAdditionalProperty]


class PoolSpec(Shape):
    appProtocol: Literal["http", "kubernetes.io/h2c"] | None = None
    endpointPickerRef: EndpointPickerRef
    selector: Selector
    targetPorts: Annotated[list[Port], Field(max_length=8, min_length=1)]


class Pool(Shape):
    ref: BaseRef | None = None
    spec: PoolSpec | None = None


class Tokenizer(Shape):
    template: PodTemplateSpec | None = None


class Scheduler(Shape):
    annotations: dict[str, str] | None = None
    config: Config | None = None
    labels: dict[str, str] | None = None
    pool: Pool | None = None
    replicas: int | None = None
    template: PodTemplateSpec | None = None
    tokenizer: Tokenizer | None = None


class Router(Shape):
    gateway: Gateway | None = None
    ingress: Ingress | None = None
    route: Route | None = None
    scheduler: Scheduler | None = None


class StorageInitializer(Shape):
    enabled: bool | None = None


class Tracing(Shape):
    exporter: str | None = None
    exporterEndpoint: str | None = None
    sampler: str | None = None
    samplerArg: str | None = None


class LLMInferenceServiceSpec(Shape):
    annotations: dict[str, str] | None = None
    baseRefs: list[BaseRef] | None = None
    kvCacheOffloading: KvCacheOffloading | None = None
    labels: dict[str, str] | None = None
    model: Model | None = None
    parallelism: Parallelism | None = None
    prefill: Prefill | None = None
    replicas: Annotated[int | None, Field(ge=0)] = None
    rolloutStrategy: RolloutStrategy | None = None
    router: Router | None = None
    scaling: Scaling | None = None
    storageInitializer: StorageInitializer | None = None
    template: PodTemplateSpec | None = None
    tracing: Tracing | None = None
    worker: PodTemplateSpec | None = None


class LLMInferenceService(Shape):
    apiVersion: Literal["serving.kserve.io/v1alpha2"] = "serving.kserve.io/v1alpha2"
    kind: Literal["LLMInferenceService"] = "LLMInferenceService"
    metadata: ObjectMeta
    spec: LLMInferenceServiceSpec | None = None
    status: Free | None = None
