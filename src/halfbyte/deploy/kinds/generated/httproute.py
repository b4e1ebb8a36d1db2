# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel

from halfbyte.deploy.kinds.base import Free, ObjectMeta, Shape


class ParentRef(Shape):
    group: Annotated[
        str | None,
        Field(max_length=253, pattern="^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ] = None
    kind: Annotated[str | None, Field(max_length=63, min_length=1, pattern="^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")] = (
        None
    )
    name: Annotated[str, Field(max_length=253, min_length=1)]
    namespace: Annotated[str | None, Field(max_length=63, min_length=1, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = (
        None
    )
    port: Annotated[int | None, Field(ge=1, le=65535)] = None
    sectionName: Annotated[
        str | None,
        Field(
            max_length=253, min_length=1, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
        ),
    ] = None


class AllowHeader(RootModel[str]):
    root: Annotated[str, Field(max_length=256, min_length=1, pattern="^[A-Za-z0-9!#$%&'*+\\-.^_\\x60|~]+$")]


class AllowOrigin(RootModel[str]):
    root: Annotated[
        str,
        Field(
            max_length=253,
            min_length=1,
            pattern="(^\\*$)|(^(http(s)?):\\/\\/(((\\*\\.)?([a-zA-Z0-9\\-]+\\.)*[a-zA-Z0-9-]+|\\*)(:([0-9]{1,5}))?)$)",
        ),
    ]


class ExposeHeader(RootModel[str]):
    root: Annotated[str, Field(max_length=256, min_length=1, pattern="^[A-Za-z0-9!#$%&'*+\\-.^_\\x60|~]+$")]


class Cors(Shape):
    allowCredentials: bool | None = None
    allowHeaders: Annotated[list[AllowHeader] | None, Field(max_length=64)] = None
    allowMethods: Annotated[
        list[Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"]] | None,
        Field(max_length=9),
    ] = None
    allowOrigins: Annotated[list[AllowOrigin] | None, Field(max_length=64)] = None
    exposeHeaders: Annotated[list[ExposeHeader] | None, Field(max_length=64)] = None
    maxAge: Annotated[int | None, Field(ge=1)] = None


class ExtensionRef(Shape):
    group: Annotated[
        str, Field(max_length=253, pattern="^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    ]
    kind: Annotated[str, Field(max_length=63, min_length=1, pattern="^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")]
    name: Annotated[str, Field(max_length=253, min_length=1)]


class Add(Shape):
    name: Annotated[str, Field(max_length=256, min_length=1, pattern="^[A-Za-z0-9!#$%&'*+\\-.^_\\x60|~]+$")]
    value: Annotated[str, Field(max_length=4096, min_length=1)]


class RequestHeaderModifier(Shape):
    add: Annotated[list[Add] | None, Field(max_length=16)] = None
    remove: Annotated[list[str] | None, Field(max_length=16)] = None
    set: Annotated[list[Add] | None, Field(max_length=16)] = None


class BackendRef(Shape):
    group: Annotated[
        str | None,
        Field(max_length=253, pattern="^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ] = None
    kind: Annotated[str | None, Field(max_length=63, min_length=1, pattern="^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")] = (
        None
    )
    name: Annotated[str, Field(max_length=253, min_length=1)]
    namespace: Annotated[str | None, Field(max_length=63, min_length=1, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = (
        None
    )
    port: Annotated[int | None, Field(ge=1, le=65535)] = None


class Fraction(Shape):
    denominator: Annotated[int | None, Field(ge=1)] = None
    numerator: Annotated[int, Field(ge=0)]


class RequestMirror(Shape):
    backendRef: BackendRef
    fraction: Fraction | None = None
    percent: Annotated[int | None, Field(ge=0, le=100)] = None


class Path(Shape):
    replaceFullPath: Annotated[str | None, Field(max_length=1024)] = None
    replacePrefixMatch: Annotated[str | None, Field(max_length=1024)] = None
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]


class RequestRedirect(Shape):
    hostname: Annotated[
        str | None,
        Field(
            max_length=253, min_length=1, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
        ),
    ] = None
    path: Path | None = None
    port: Annotated[int | None, Field(ge=1, le=65535)] = None
    scheme: Literal["http", "https"] | None = None
    statusCode: Literal[301, 302, 303, 307, 308] | None = None


class UrlRewrite(Shape):
    hostname: Annotated[
        str | None,
        Field(
            max_length=253, min_length=1, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
        ),
    ] = None
    path: Path | None = None


class Filter(Shape):
    cors: Cors | None = None
    extensionRef: ExtensionRef | None = None
    requestHeaderModifier: RequestHeaderModifier | None = None
    requestMirror: RequestMirror | None = None
    requestRedirect: RequestRedirect | None = None
    responseHeaderModifier: RequestHeaderModifier | None = None
    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
        "CORS",
    ]
    urlRewrite: UrlRewrite | None = None


class RuleBackendRef(Shape):
    filters: Annotated[list[Filter] | None, Field(max_length=16)] = None
    group: Annotated[
        str | None,
        Field(max_length=253, pattern="^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ] = None
    kind: Annotated[str | None, Field(max_length=63, min_length=1, pattern="^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")] = (
        None
    )
    name: Annotated[str, Field(max_length=253, min_length=1)]
    namespace: Annotated[str | None, Field(max_length=63, min_length=1, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = (
        None
    )
    port: Annotated[int | None, Field(ge=1, le=65535)] = None
    weight: Annotated[int | None, Field(ge=0, le=1000000)] = None


class Header(Shape):
    name: Annotated[str, Field(max_length=256, min_length=1, pattern="^[A-Za-z0-9!#$%&'*+\\-.^_\\x60|~]+$")]
    type: Literal["Exact", "RegularExpression"] | None = None
    value: Annotated[str, Field(max_length=4096, min_length=1)]


class MatchePath(Shape):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] | None = None
    value: Annotated[str | None, Field(max_length=1024)] = None


class QueryParam(Shape):
    name: Annotated[str, Field(max_length=256, min_length=1, pattern="^[A-Za-z0-9!#$%&'*+\\-.^_\\x60|~]+$")]
    type: Literal["Exact", "RegularExpression"] | None = None
    value: Annotated[str, Field(max_length=1024, min_length=1)]


class Matche(Shape):
    headers: Annotated[list[Header] | None, Field(max_length=16)] = None
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] | None = None
    path: MatchePath | None = None
    queryParams: Annotated[list[QueryParam] | None, Field(max_length=16)] = None


class Timeouts(Shape):
    backendRequest: Annotated[str | None, Field(pattern="^([0-9]{1,5}(h|m|s|ms)){1,4}$")] = None
    request: Annotated[str | None, Field(pattern="^([0-9]{1,5}(h|m|s|ms)){1,4}$")] = None


class Rule(Shape):
    backendRefs: Annotated[list[RuleBackendRef] | None, Field(max_length=16)] = None
    filters: Annotated[list[Filter] | None, Field(max_length=16)] = None
    matches: Annotated[list[Matche] | None, Field(max_length=64)] = None
    name: Annotated[
        str | None,
        Field(
            max_length=253, min_length=1, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
        ),
    ] = None
    timeouts: Timeouts | None = None


class Hostname(RootModel[str]):
    root: Annotated[
        str,
        Field(
            max_length=253,
            min_length=1,
            pattern="^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        ),
    ]


class HTTPRouteSpec(Shape):
    hostnames: Annotated[list[Hostname] | None, Field(max_length=16)] = None
    parentRefs: Annotated[list[ParentRef] | None, Field(max_length=32)] = None
    rules: Annotated[list[Rule] | None, Field(max_length=16, min_length=1)] = None


class HTTPRoute(Shape):
    apiVersion: Literal["gateway.networking.k8s.io/v1"] = "gateway.networking.k8s.io/v1"
    kind: Literal["HTTPRoute"] = "HTTPRoute"
    metadata: ObjectMeta
    spec: HTTPRouteSpec
    status: Free | None = None
