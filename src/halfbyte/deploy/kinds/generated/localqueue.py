# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from halfbyte.deploy.kinds.base import Free, ObjectMeta, Shape
from halfbyte.deploy.kinds.scalars import Quantity


class FairSharing(Shape):
    weight: Quantity | None = None


class LocalQueueSpec(Shape):
    clusterQueue: Annotated[
        str | None, Field(max_length=253, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    ] = None
    fairSharing: FairSharing | None = None
    stopPolicy: Literal["None", "Hold", "HoldAndDrain"] | None = None


class LocalQueue(Shape):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"] = "kueue.x-k8s.io/v1beta2"
    kind: Literal["LocalQueue"] = "LocalQueue"
    metadata: ObjectMeta
    spec: LocalQueueSpec | None = None
    status: Free | None = None
