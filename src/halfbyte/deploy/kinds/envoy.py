"""Envoy AI Gateway's route and backend, and the Backend of Envoy Gateway that it stands on. No published definition of
them is at hand where the others are generated, so they are written here.

Every field of the API is named; what is never written here is `Free`: allowed, its content not judged.
Sources: Envoy AI Gateway 1.1, API aigateway.envoyproxy.io/v1beta1 (api/v1beta1); Envoy Gateway 1.8, API
gateway.envoyproxy.io/v1alpha1 (api/v1alpha1, backend_types.go).
"""

from typing import Annotated, Literal

from pydantic import Field

from halfbyte.deploy.kinds.base import Free, ObjectMeta, Shape
from halfbyte.deploy.kinds.core import Natural
from halfbyte.deploy.kinds.generated.httproute import Header, ParentRef, Timeouts
from halfbyte.deploy.kinds.scalars import NAME

Name = Annotated[str, Field(min_length=1, max_length=253)]
Host = Annotated[str, Field(min_length=1, max_length=253, pattern=NAME)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Match(Shape):
    headers: Annotated[list[Header] | None, Field(max_length=16)] = None


class RuleBackend(Shape):
    name: Annotated[str, Field(min_length=1)]
    namespace: str | None = None
    group: str | None = None
    kind: str | None = None
    modelNameOverride: str | None = None
    weight: Natural | None = None
    priority: Natural | None = None
    bodyMutation: Free = None
    headerMutation: Free = None


class Rule(Shape):
    name: str | None = None
    matches: Annotated[list[Match] | None, Field(max_length=128)] = None
    backendRefs: Annotated[list[RuleBackend] | None, Field(max_length=128)] = None
    timeouts: Timeouts | None = None
    streamIdleTimeout: str | None = None
    modelsOwnedBy: str | None = None
    modelsCreatedAt: Free = None


class AIGatewayRouteSpec(Shape):
    rules: Annotated[list[Rule], Field(max_length=15)]
    parentRefs: Annotated[list[ParentRef] | None, Field(max_length=16)] = None
    hostnames: Annotated[list[str] | None, Field(max_length=16)] = None
    llmRequestCosts: Free = None


class AIGatewayRoute(Shape):
    apiVersion: Literal["aigateway.envoyproxy.io/v1beta1"]
    kind: Literal["AIGatewayRoute"]
    metadata: ObjectMeta
    spec: AIGatewayRouteSpec
    status: Free = None


class Schema(Shape):
    name: Literal[
        "OpenAI", "Cohere", "AWSBedrock", "AzureOpenAI", "GCPVertexAI", "GCPAnthropic", "Anthropic", "AWSAnthropic"
    ]
    version: str | None = None
    prefix: str | None = None


class BackendRef(Shape):
    name: Name
    group: Literal["gateway.envoyproxy.io"]
    kind: Literal["Backend"]
    namespace: str | None = None
    port: Free = None


class AIServiceBackendSpec(Shape):
    spoken: Annotated[Schema, Field(alias="schema")]
    backendRef: BackendRef
    bodyMutation: Free = None
    headerMutation: Free = None


class AIServiceBackend(Shape):
    apiVersion: Literal["aigateway.envoyproxy.io/v1beta1"]
    kind: Literal["AIServiceBackend"]
    metadata: ObjectMeta
    spec: AIServiceBackendSpec
    status: Free = None


class FullName(Shape):
    hostname: Host
    port: Port


class Endpoint(Shape):
    fqdn: FullName | None = None
    hostname: Host | None = None
    ip: Free = None
    unix: Free = None
    zone: Free = None


class BackendSpec(Shape):
    endpoints: Annotated[list[Endpoint] | None, Field(min_length=1, max_length=64)] = None
    type: Literal["Endpoints", "DynamicResolver"] | None = None
    appProtocols: Free = None
    fallback: bool | None = None
    tls: Free = None


class Backend(Shape):
    apiVersion: Literal["gateway.envoyproxy.io/v1alpha1"]
    kind: Literal["Backend"]
    metadata: ObjectMeta
    spec: BackendSpec
    status: Free = None
