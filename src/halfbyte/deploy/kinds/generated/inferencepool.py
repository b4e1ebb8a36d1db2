# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from halfbyte.deploy.kinds.base import Free, ObjectMeta, Shape


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


class InferencePoolSpec(Shape):
    appProtocol: Literal["http", "kubernetes.io/h2c"] | None = None
    endpointPickerRef: EndpointPickerRef | None = None
    selector: Selector
    targetPorts: Annotated[list[Port], Field(max_length=8, min_length=1)]


class InferencePool(Shape):
    apiVersion: Literal["inference.networking.k8s.io/v1"] = "inference.networking.k8s.io/v1"
    kind: Literal["InferencePool"] = "InferencePool"
    metadata: ObjectMeta
    spec: InferencePoolSpec
    status: Free | None = None
