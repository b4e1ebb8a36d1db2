# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from halfbyte.deploy.kinds.base import ObjectMeta, Shape


class NodeTaint(Shape):
    effect: str
    key: str
    timeAdded: str | None = None
    value: str | None = None


class Toleration(Shape):
    effect: str | None = None
    key: str | None = None
    operator: str | None = None
    tolerationSeconds: int | None = None
    value: str | None = None


class ResourceFlavorSpec(Shape):
    nodeLabels: dict[str, str] | None = None
    nodeTaints: Annotated[list[NodeTaint] | None, Field(max_length=8)] = None
    tolerations: Annotated[list[Toleration] | None, Field(max_length=8)] = None
    topologyName: Annotated[
        str | None, Field(max_length=253, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    ] = None


class ResourceFlavor(Shape):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"] = "kueue.x-k8s.io/v1beta2"
    kind: Literal["ResourceFlavor"] = "ResourceFlavor"
    metadata: ObjectMeta
    spec: ResourceFlavorSpec | None = None
