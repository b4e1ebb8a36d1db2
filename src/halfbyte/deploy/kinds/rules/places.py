"""Where in an object its pod templates stand, and what is there twice."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

Document = dict[str, Any]


class Template(NamedTuple):
    """field: its path. claims: volumes that the object makes for it."""

    field: str
    content: Document
    claims: tuple[str, ...] = ()

    @property
    def spec(self) -> Document:
        found: Document = self.content.get("spec") or {}
        return found

    @property
    def containers(self) -> Iterator[tuple[str, Document]]:
        """Path and container, those that run first among them."""
        for place in ("initContainers", "containers"):
            for position, container in enumerate(self.spec.get(place) or ()):
                yield f"{self.field}.spec.{place}.{position}", container


def templates(document: Document) -> Iterator[Template]:
    spec = document.get("spec") or {}
    if document["kind"] == "LeaderWorkerSet":
        workers = spec.get("leaderWorkerTemplate") or {}
        claims = tuple(claim["metadata"]["name"] for claim in workers.get("volumeClaimTemplates") or ())
        for place in ("leaderTemplate", "workerTemplate"):
            if workers.get(place):
                yield Template(f"spec.leaderWorkerTemplate.{place}", workers[place], claims)
    elif document["kind"] == "LLMInferenceService":
        for place in ("template", "worker"):
            if spec.get(place):
                yield Template(f"spec.{place}", {"spec": spec[place]})
    elif document["kind"] == "RayJob":
        yield from _of_ray(spec)
    elif document["kind"] == "CronJob":
        yield Template("spec.jobTemplate.spec.template", spec["jobTemplate"]["spec"]["template"])
    elif "template" in spec:
        yield Template("spec.template", spec["template"])


def _of_ray(spec: Document) -> Iterator[Template]:
    cluster = spec.get("rayClusterSpec") or {}
    if cluster:
        yield Template("spec.rayClusterSpec.headGroupSpec.template", cluster["headGroupSpec"]["template"])
    for number, group in enumerate(cluster.get("workerGroupSpecs") or ()):
        yield Template(f"spec.rayClusterSpec.workerGroupSpecs.{number}.template", group["template"])
    if spec.get("submitterPodTemplate"):
        yield Template("spec.submitterPodTemplate", spec["submitterPodTemplate"])


def twice(field: str, values: Iterable[object]) -> Iterator[str]:
    """A fault for each value that stands more than once."""
    for value, count in Counter(values).items():
        if count > 1:
            yield f"{field}: {value!r} stands {count} times"
