# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from halfbyte.deploy.kinds.base import Free, ObjectMeta, Shape
from halfbyte.deploy.kinds.scalars import Quantity


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
    behavior: (
        Literal["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower", "scalingModifiers"]
        | None
    ) = None
    failureThreshold: Annotated[int, Field(ge=0)]
    replicas: Annotated[int, Field(ge=0)]


class ScaleTargetRef(Shape):
    apiVersion: str | None = None
    envSourceContainerName: str | None = None
    kind: str | None = None
    name: Annotated[str, Field(min_length=1)]


class AuthenticationRef(Shape):
    kind: Literal["TriggerAuthentication", "ClusterTriggerAuthentication"] | None = None
    name: str


class Trigger(Shape):
    authenticationRef: AuthenticationRef | None = None
    metadata: dict[str, str]
    metricType: str | None = None
    name: str | None = None
    type: Annotated[str, Field(min_length=1)]
    useCachedMetrics: bool | None = None


class ScaledObjectSpec(Shape):
    advanced: Advanced | None = None
    cooldownPeriod: Annotated[int | None, Field(ge=0)] = None
    fallback: Fallback | None = None
    idleReplicaCount: Annotated[int | None, Field(ge=0)] = None
    initialCooldownPeriod: Annotated[int | None, Field(ge=0)] = None
    maxReplicaCount: Annotated[int | None, Field(ge=1)] = None
    minReplicaCount: Annotated[int | None, Field(ge=0)] = None
    pollingInterval: Annotated[int | None, Field(ge=1)] = None
    scaleTargetRef: ScaleTargetRef
    triggers: Annotated[list[Trigger], Field(min_length=1)]


class ScaledObject(Shape):
    apiVersion: Literal["keda.sh/v1alpha1"] = "keda.sh/v1alpha1"
    kind: Literal["ScaledObject"] = "ScaledObject"
    metadata: ObjectMeta
    spec: ScaledObjectSpec
    status: Free | None = None
