# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from halfbyte.deploy.kinds.base import Free, ObjectMeta, Shape
from halfbyte.deploy.kinds.scalars import Quantity


class FairSharing(Shape):
    weight: Quantity | None = None


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


class CohortSpec(Shape):
    fairSharing: FairSharing | None = None
    parentName: Annotated[
        str | None, Field(max_length=253, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    ] = None
    resourceGroups: Annotated[list[ResourceGroup] | None, Field(max_length=16)] = None


class Cohort(Shape):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"] = "kueue.x-k8s.io/v1beta2"
    kind: Literal["Cohort"] = "Cohort"
    metadata: ObjectMeta
    spec: CohortSpec | None = None
    status: Free | None = None
