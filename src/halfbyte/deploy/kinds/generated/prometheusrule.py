# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from halfbyte.deploy.kinds.base import Free, ObjectMeta, Shape
from halfbyte.deploy.kinds.scalars import IntOrString


class Rule(Shape):
    alert: str | None = None
    annotations: dict[str, str] | None = None
    expr: IntOrString
    for_: Annotated[
        str | None,
        Field(
            alias="for",
            pattern="^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
        ),
    ] = None
    keep_firing_for: Annotated[
        str | None,
        Field(
            min_length=1,
            pattern="^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
        ),
    ] = None
    labels: dict[str, str] | None = None
    record: str | None = None


class Group(Shape):
    interval: Annotated[
        str | None,
        Field(pattern="^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"),
    ] = None
    labels: dict[str, str] | None = None
    limit: int | None = None
    name: Annotated[str, Field(min_length=1)]
    partial_response_strategy: Annotated[str | None, Field(pattern="^(?i)(abort|warn)?$")] = None
    query_offset: Annotated[
        str | None,
        Field(pattern="^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"),
    ] = None
    rules: list[Rule] | None = None


class PrometheusRuleSpec(Shape):
    groups: list[Group] | None = None


class PrometheusRule(Shape):
    apiVersion: Literal["monitoring.coreos.com/v1"] = "monitoring.coreos.com/v1"
    kind: Literal["PrometheusRule"] = "PrometheusRule"
    metadata: ObjectMeta
    spec: PrometheusRuleSpec
    status: Free | None = None
