"""Pods: what the API server or the kubelet refuses in a template. Source: Kubernetes 1.36, pkg/apis/core/validation."""

from collections.abc import Iterator
from typing import Any

from halfbyte.deploy.kinds.rules.places import Template, twice
from halfbyte.deploy.kinds.rules.places import templates as of_document
from halfbyte.deploy.kinds.rules.queues import tolerance
from halfbyte.deploy.kinds.scalars import amount

Document = dict[str, Any]

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
COUNTS = ("periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
DEFAULT_GRACE_SECONDS = 30


def templates(document: Document) -> Iterator[str]:
    for template in of_document(document):
        yield from _pod(template)
        for field, container in template.containers:
            yield from _container(field, container, template)


def _pod(template: Template) -> Iterator[str]:
    spec, field = template.spec, f"{template.field}.spec"
    if not spec.get("containers"):
        yield f"{field}.containers: empty"
    yield from twice(f"{field}.containers", (container["name"] for _, container in template.containers))
    yield from twice(f"{field}.volumes", (volume["name"] for volume in spec.get("volumes") or ()))
    for number, volume in enumerate(spec.get("volumes") or ()):
        sources = sorted(set(volume) - {"name"})
        if len(sources) != 1:
            yield f"{field}.volumes.{number}: {volume['name']!r} has {sources or 'no source'}, wanted one source"
    for number, toleration in enumerate(spec.get("tolerations") or ()):
        yield from tolerance(f"{field}.tolerations.{number}", toleration)
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        yield f"{field}.terminationGracePeriodSeconds: {grace} is negative"


def _container(field: str, container: Document, template: Template) -> Iterator[str]:
    image = container.get("image")
    if not image or any(letter.isspace() for letter in image):
        yield f"{field}.image: wanted an image ({image!r})"
    if container.get("imagePullPolicy") not in (None, *PULL_POLICIES):
        yield f"{field}.imagePullPolicy: {container['imagePullPolicy']!r}, wanted one of {', '.join(PULL_POLICIES)}"
    yield from _ports(field, container)
    yield from _variables(field, container)
    yield from _mounts(field, container, template)
    yield from _resources(f"{field}.resources", container.get("resources") or {})
    for probe in PROBES:
        if container.get(probe) is not None:
            yield from _probe(f"{field}.{probe}", container[probe], container, exact=probe != "readinessProbe")
    for moment, hook in (container.get("lifecycle") or {}).items():
        if isinstance(hook, dict):
            yield from _hook(f"{field}.lifecycle.{moment}", hook, template)
    yield from _privileges(field, container, template)


def _ports(field: str, container: Document) -> Iterator[str]:
    ports = container.get("ports") or ()
    yield from twice(f"{field}.ports", (port["name"] for port in ports if port.get("name")))
    yield from twice(f"{field}.ports", ((port["containerPort"], port.get("protocol", "TCP")) for port in ports))
    for number, port in enumerate(ports):
        if not 1 <= port["containerPort"] <= 65535:
            yield f"{field}.ports.{number}.containerPort: {port['containerPort']}, wanted 1 to 65535"
        if len(port.get("name") or "") > 15:
            yield f"{field}.ports.{number}.name: {port['name']!r} is longer than 15 characters"


def _variables(field: str, container: Document) -> Iterator[str]:
    variables = container.get("env") or ()
    yield from twice(f"{field}.env", (variable["name"] for variable in variables))
    for number, variable in enumerate(variables):
        source = variable.get("valueFrom")
        if source is not None and variable.get("value"):
            yield f"{field}.env.{number}: {variable['name']!r} has value and valueFrom"
        if source is not None and len(source) != 1:
            yield f"{field}.env.{number}.valueFrom: {variable['name']!r} has {sorted(source)}, wanted one source"


def _mounts(field: str, container: Document, template: Template) -> Iterator[str]:
    mounts = container.get("volumeMounts") or ()
    known = {volume["name"] for volume in template.spec.get("volumes") or ()} | set(template.claims)
    yield from twice(f"{field}.volumeMounts", (mount["mountPath"] for mount in mounts))
    for number, mount in enumerate(mounts):
        if mount["name"] not in known:
            there = ", ".join(sorted(known)) or "none"
            yield f"{field}.volumeMounts.{number}: no volume {mount['name']!r}; there is {there}"
        below = mount.get("subPath") or ""
        if below.startswith("/") or ".." in below.split("/"):
            yield f"{field}.volumeMounts.{number}.subPath: {below!r} is no path inside the volume"


def _resources(field: str, resources: Document) -> Iterator[str]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, requested in requests.items():
        if name in limits and amount(requested) > amount(limits[name]):
            yield f"{field}: {name}: request {requested} is more than limit {limits[name]}"
    for name in sorted(requests.keys() | limits.keys()):
        if "/" not in name:
            continue
        limit = limits.get(name)
        if limit is None or amount(requests.get(name, limit)) != amount(limit):
            yield f"{field}: {name}: request {requests.get(name)} needs the same limit ({limit})"
        elif amount(limit) % 1:
            yield f"{field}: {name}: {limit} is no whole number"


def _probe(field: str, probe: Document, container: Document, *, exact: bool) -> Iterator[str]:
    """exact: one success is enough, by the API's rule."""
    yield from _one_handler(field, probe)
    for key in COUNTS:
        if probe.get(key) is not None and probe[key] < 1:
            yield f"{field}.{key}: {probe[key]}, wanted at least 1"
    if (probe.get("initialDelaySeconds") or 0) < 0:
        yield f"{field}.initialDelaySeconds: {probe['initialDelaySeconds']} is negative"
    if exact and probe.get("successThreshold") not in (None, 1):
        yield f"{field}.successThreshold: {probe['successThreshold']}, wanted 1"
    names = {port["name"] for port in container.get("ports") or () if port.get("name")}
    port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
    if isinstance(port, str) and port not in names:
        yield f"{field}: port {port!r} is none of the container's ({', '.join(sorted(names)) or 'it names none'})"
    if isinstance(port, int) and not 1 <= port <= 65535:
        yield f"{field}: port {port}, wanted 1 to 65535"


def _one_handler(field: str, handler: Document) -> Iterator[str]:
    given = [key for key in HANDLERS if handler.get(key) is not None]
    if len(given) != 1:
        yield f"{field}: has {given or 'nothing to do'}, wanted one of {', '.join(HANDLERS)}"


def _hook(field: str, hook: Document, template: Template) -> Iterator[str]:
    yield from _one_handler(field, hook)
    grace = template.spec.get("terminationGracePeriodSeconds")
    grace = DEFAULT_GRACE_SECONDS if grace is None else grace
    pause = (hook.get("sleep") or {}).get("seconds")
    if pause is not None and not 0 < pause <= grace:
        yield f"{field}.sleep.seconds: {pause}, wanted 1 to the grace period ({grace})"


def _privileges(field: str, container: Document, template: Template) -> Iterator[str]:
    own, shared = container.get("securityContext") or {}, template.spec.get("securityContext") or {}
    if own.get("privileged") and own.get("allowPrivilegeEscalation") is False:
        yield f"{field}.securityContext: privileged, and allowPrivilegeEscalation false"
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) and own.get("runAsUser", shared.get("runAsUser")) == 0:
        yield f"{field}.securityContext: runAsNonRoot, and runAsUser 0"
