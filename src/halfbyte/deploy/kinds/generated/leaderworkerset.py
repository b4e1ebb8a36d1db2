# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from halfbyte.deploy.kinds.base import Free, LabelSelector, ObjectMeta, Shape
from halfbyte.deploy.kinds.generated.pods import PodTemplate
from halfbyte.deploy.kinds.scalars import IntOrString, Quantity


class PersistentVolumeClaimRetentionPolicy(Shape):
    whenDeleted: str | None = None
    whenScaled: str | None = None


class SubGroupPolicy(Shape):
    subGroupPolicyType: Literal["LeaderWorker", "LeaderExcluded"] | None = None
    subGroupSize: int | None = None


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


class VolumeClaimTemplate(Shape):
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
    spec: Spec | None = None
    status: Free | None = None


class LeaderWorkerTemplate(Shape):
    leaderTemplate: PodTemplate | None = None
    persistentVolumeClaimRetentionPolicy: PersistentVolumeClaimRetentionPolicy | None = None
    restartPolicy: Literal["Default", "RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"] | None = None
    size: int | None = None
    subGroupPolicy: SubGroupPolicy | None = None
    volumeClaimTemplates: list[VolumeClaimTemplate] | None = None
    workerTemplate: PodTemplate


class NetworkConfig(Shape):
    subdomainPolicy: Literal["Shared", "UniquePerReplica"]


class RollingUpdateConfiguration(Shape):
    maxSurge: IntOrString | None = None
    maxUnavailable: IntOrString | None = None
    partition: int | None = None


class RolloutStrategy(Shape):
    rollingUpdateConfiguration: RollingUpdateConfiguration | None = None
    type: Literal["RollingUpdate"] = "RollingUpdate"


class LeaderWorkerSetSpec(Shape):
    leaderWorkerTemplate: LeaderWorkerTemplate
    networkConfig: NetworkConfig | None = None
    replicas: Annotated[int | None, Field(ge=0, le=1000000)] = None
    rolloutStrategy: RolloutStrategy | None = None
    startupPolicy: Literal["LeaderCreated", "LeaderReady"] | None = None


class LeaderWorkerSet(Shape):
    apiVersion: Literal["leaderworkerset.x-k8s.io/v1"] = "leaderworkerset.x-k8s.io/v1"
    kind: Literal["LeaderWorkerSet"] = "LeaderWorkerSet"
    metadata: ObjectMeta
    spec: LeaderWorkerSetSpec | None = None
    status: Free | None = None
