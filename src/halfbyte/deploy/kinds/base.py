"""What every object of Kubernetes has: strict shapes, metadata, selectors.

Field names are the API's own, so that a fault names the path that stands in the file.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from halfbyte.deploy.kinds.scalars import LabelKey, LabelValue, ObjectName


class Shape(BaseModel):
    """A part of a manifest. Unknown fields and values of another type are refused, as a strict server does.

    Nothing is built before it is used: a manifest holds few of the kinds that could stand in it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True, populate_by_name=True)


Free = Any
"""A field of the API that is never written here: its presence is allowed, its content not judged."""


class ObjectMeta(Shape):
    """metadata, of an object or of a template."""

    name: ObjectName | None = None
    generateName: str | None = None
    namespace: ObjectName | None = None
    labels: dict[LabelKey, LabelValue] | None = None
    annotations: dict[LabelKey, str] | None = None
    finalizers: list[str] | None = None
    ownerReferences: Free = None
    creationTimestamp: Free = None
    deletionGracePeriodSeconds: Free = None
    deletionTimestamp: Free = None
    generation: Free = None
    managedFields: Free = None
    resourceVersion: Free = None
    selfLink: Free = None
    uid: Free = None


class Requirement(Shape):
    """One expression of a selector."""

    key: LabelKey
    operator: str
    values: list[LabelValue] | None = None


class LabelSelector(Shape):
    """Labels that an object must have, all of them."""

    matchLabels: dict[LabelKey, LabelValue] | None = None
    matchExpressions: list[Requirement] | None = None
