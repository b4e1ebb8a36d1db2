# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel

from halfbyte.deploy.kinds.base import Free, LabelSelector, ObjectMeta, Shape
from halfbyte.deploy.kinds.scalars import Quantity


class OnFlavor(RootModel[str]):
    root: Annotated[
        str, Field(max_length=253, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    ]


class AdmissionCheck(Shape):
    name: Annotated[str, Field(max_length=316, min_length=1)]
    onFlavors: Annotated[list[OnFlavor] | None, Field(max_length=64)] = None


class AdmissionChecksStrategy(Shape):
    admissionChecks: Annotated[list[AdmissionCheck], Field(max_length=64, min_length=1)]


class AdmissionScope(Shape):
    admissionMode: Literal["UsageBasedAdmissionFairSharing", "NoAdmissionFairSharing"]


class Constraints(Shape):
    lastAcceptableFlavorName: Annotated[
        str | None, Field(max_length=253, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    ] = None


class Migration(Shape):
    constraints: Constraints | None = None
    mode: Annotated[Literal["TryPreferredFlavors", "RetainFirstAdmission"], Field(max_length=253)]


class ConcurrentAdmissionPolicy(Shape):
    migration: Migration


class FairSharing(Shape):
    weight: Quantity | None = None


class FlavorFungibility(Shape):
    preference: Literal["BorrowingOverPreemption", "PreemptionOverBorrowing"] | None = None
    whenCanBorrow: Literal["MayStopSearch", "TryNextFlavor"] | None = None
    whenCanPreempt: Literal["MayStopSearch", "TryNextFlavor"] | None = None


class BorrowWithinCohort(Shape):
    maxPriorityThreshold: int | None = None
    policy: Literal["Never", "LowerPriority"] | None = None


class Preemption(Shape):
    borrowWithinCohort: BorrowWithinCohort | None = None
    reclaimWithinCohort: Literal["Never", "LowerPriority", "Any"] | None = None
    withinClusterQueue: Literal["Never", "LowerPriority", "LowerOrNewerEqualPriority"] | None = None


class Resource(Shape):
    borrowingLimit: Quantity | None = None
    lendingLimit: Quantity | None = None
    name: str
    nominalQuota: Quantity


class Flavor(Shape):
    name: Annotated[
        str, Field(max_length=253, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    ]
    resources: Annotated[list[Resource], Field(max_length=64, min_length=1)]


class ResourceGroup(Shape):
    coveredResources: Annotated[list[str], Field(max_length=64, min_length=1)]
    flavors: Annotated[list[Flavor], Field(max_length=64, min_length=1)]


class ClusterQueueSpec(Shape):
    admissionChecksStrategy: AdmissionChecksStrategy | None = None
    admissionScope: AdmissionScope | None = None
    cohortName: Annotated[
        str | None, Field(max_length=253, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    ] = None
    concurrentAdmissionPolicy: ConcurrentAdmissionPolicy | None = None
    fairSharing: FairSharing | None = None
    flavorFungibility: FlavorFungibility | None = None
    namespaceSelector: LabelSelector | None = None
    preemption: Preemption | None = None
    queueingStrategy: Literal["StrictFIFO", "BestEffortFIFO"] | None = None
    resourceGroups: Annotated[list[ResourceGroup] | None, Field(max_length=16)] = None
    stopPolicy: Literal["None", "Hold", "HoldAndDrain"] | None = None


class ClusterQueue(Shape):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"] = "kueue.x-k8s.io/v1beta2"
    kind: Literal["ClusterQueue"] = "ClusterQueue"
    metadata: ObjectMeta
    spec: ClusterQueueSpec | None = None
    status: Free | None = None
