# Generated from the published definition by tests/deploy/record_kinds.py. Do not edit.

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from halfbyte.deploy.kinds.base import Free, LabelSelector, ObjectMeta, Shape
from halfbyte.deploy.kinds.scalars import IntOrString, Quantity


class AttachMetadata(Shape):
    node: bool | None = None


class Credentials(Shape):
    key: str
    name: str | None = None
    optional: bool | None = None


class Authorization(Shape):
    credentials: Credentials | None = None
    type: str | None = None


class BasicAuth(Shape):
    password: Credentials | None = None
    username: Credentials | None = None


class MetricRelabeling(Shape):
    action: (
        Literal[
            "replace",
            "Replace",
            "keep",
            "Keep",
            "drop",
            "Drop",
            "hashmod",
            "HashMod",
            "labelmap",
            "LabelMap",
            "labeldrop",
            "LabelDrop",
            "labelkeep",
            "LabelKeep",
            "lowercase",
            "Lowercase",
            "uppercase",
            "Uppercase",
            "keepequal",
            "KeepEqual",
            "dropequal",
            "DropEqual",
        ]
        | None
    ) = None
    modulus: Annotated[int | None, Field(ge=0)] = None
    regex: str | None = None
    replacement: str | None = None
    separator: str | None = None
    sourceLabels: list[str] | None = None
    targetLabel: str | None = None


class ClientId(Shape):
    configMap: Credentials | None = None
    secret: Credentials | None = None


class TlsConfig(Shape):
    ca: ClientId | None = None
    cert: ClientId | None = None
    insecureSkipVerify: bool | None = None
    keySecret: Credentials | None = None
    maxVersion: Literal["TLS10", "TLS11", "TLS12", "TLS13"] | None = None
    minVersion: Literal["TLS10", "TLS11", "TLS12", "TLS13"] | None = None
    serverName: str | None = None


class Oauth2(Shape):
    clientId: ClientId
    clientSecret: Credentials
    endpointParams: dict[str, str] | None = None
    noProxy: str | None = None
    proxyConnectHeader: dict[str, list[Credentials]] | None = None
    proxyFromEnvironment: bool | None = None
    proxyUrl: Annotated[str | None, Field(pattern="^(http|https|socks5)://.+$")] = None
    scopes: list[str] | None = None
    tlsConfig: TlsConfig | None = None
    tokenUrl: Annotated[str, Field(pattern="^(http|https)://.+$")]


class EndpointTlsConfig(Shape):
    ca: ClientId | None = None
    caFile: str | None = None
    cert: ClientId | None = None
    certFile: str | None = None
    insecureSkipVerify: bool | None = None
    keyFile: str | None = None
    keySecret: Credentials | None = None
    maxVersion: Literal["TLS10", "TLS11", "TLS12", "TLS13"] | None = None
    minVersion: Literal["TLS10", "TLS11", "TLS12", "TLS13"] | None = None
    serverName: str | None = None


class Endpoint(Shape):
    authorization: Authorization | None = None
    basicAuth: BasicAuth | None = None
    bearerTokenFile: str | None = None
    bearerTokenSecret: Credentials | None = None
    enableHttp2: bool | None = None
    filterRunning: bool | None = None
    followRedirects: bool | None = None
    honorLabels: bool | None = None
    honorTimestamps: bool | None = None
    interval: Annotated[
        str | None,
        Field(pattern="^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"),
    ] = None
    metricRelabelings: list[MetricRelabeling] | None = None
    noProxy: str | None = None
    oauth2: Oauth2 | None = None
    params: dict[str, list[str]] | None = None
    path: str | None = None
    port: str | None = None
    proxyConnectHeader: dict[str, list[Credentials]] | None = None
    proxyFromEnvironment: bool | None = None
    proxyUrl: Annotated[str | None, Field(pattern="^(http|https|socks5)://.+$")] = None
    relabelings: list[MetricRelabeling] | None = None
    scheme: Literal["http", "https", "HTTP", "HTTPS"] | None = None
    scrapeTimeout: Annotated[
        str | None,
        Field(pattern="^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"),
    ] = None
    targetPort: IntOrString | None = None
    tlsConfig: EndpointTlsConfig | None = None
    trackTimestampsStaleness: bool | None = None


class NamespaceSelector(Shape):
    any: bool | None = None
    matchNames: list[str] | None = None


class ServiceMonitorSpec(Shape):
    attachMetadata: AttachMetadata | None = None
    bodySizeLimit: Annotated[str | None, Field(pattern="(^0|([0-9]*[.])?[0-9]+((K|M|G|T|E|P)i?)?B)$")] = None
    convertClassicHistogramsToNHCB: bool | None = None
    endpoints: list[Endpoint]
    fallbackScrapeProtocol: (
        Literal[
            "PrometheusProto",
            "OpenMetricsText0.0.1",
            "OpenMetricsText1.0.0",
            "PrometheusText0.0.4",
            "PrometheusText1.0.0",
        ]
        | None
    ) = None
    jobLabel: str | None = None
    keepDroppedTargets: Annotated[int | None, Field(ge=0)] = None
    labelLimit: Annotated[int | None, Field(ge=0)] = None
    labelNameLengthLimit: Annotated[int | None, Field(ge=0)] = None
    labelValueLengthLimit: Annotated[int | None, Field(ge=0)] = None
    namespaceSelector: NamespaceSelector | None = None
    nativeHistogramBucketLimit: Annotated[int | None, Field(ge=0)] = None
    nativeHistogramMinBucketFactor: Quantity | None = None
    podTargetLabels: list[str] | None = None
    sampleLimit: Annotated[int | None, Field(ge=0)] = None
    scrapeClass: Annotated[str | None, Field(min_length=1)] = None
    scrapeClassicHistograms: bool | None = None
    scrapeNativeHistograms: bool | None = None
    scrapeProtocols: (
        list[
            Literal[
                "PrometheusProto",
                "OpenMetricsText0.0.1",
                "OpenMetricsText1.0.0",
                "PrometheusText0.0.4",
                "PrometheusText1.0.0",
            ]
        ]
        | None
    ) = None
    selector: LabelSelector
    selectorMechanism: Literal["RelabelConfig", "RoleSelector"] | None = None
    serviceDiscoveryRole: Literal["Endpoints", "EndpointSlice"] | None = None
    targetLabels: list[str] | None = None
    targetLimit: Annotated[int | None, Field(ge=0)] = None


class ServiceMonitor(Shape):
    apiVersion: Literal["monitoring.coreos.com/v1"] = "monitoring.coreos.com/v1"
    kind: Literal["ServiceMonitor"] = "ServiceMonitor"
    metadata: ObjectMeta
    spec: ServiceMonitorSpec
    status: Free | None = None
