"""What no single object shows: whether a set of manifests agrees with itself. Content counts, not form.

`faults` needs the documents alone, so edited ones are judged like our own.
"""

from collections.abc import Callable, Iterator, Sequence

from halfbyte.deploy.checks import flavors, pods, queues, traffic
from halfbyte.deploy.checks.documents import Cluster
from halfbyte.deploy.objects import Document


def faults(documents: Sequence[Document]) -> list[str]:
    """One line for each fault, with kind and name of the object to blame; empty if they agree."""
    cluster = Cluster(documents)
    return [line for check in CHECKS for line in check(cluster)]


CHECKS: tuple[Callable[[Cluster], Iterator[str]], ...] = (
    pods.names,
    queues.queues,
    queues.queue_labels_in_templates,
    queues.quota_covers,
    queues.work_fits,
    queues.tolerations,
    flavors.quota_there,
    flavors.placement,
    pods.startup,
    pods.drain,
    traffic.scaling,
    traffic.rollout,
    traffic.budgets,
    traffic.services,
    pods.volumes,
    traffic.tenants,
    traffic.doors,
    traffic.ai_routes,
    pods.locked,
    pods.secrets,
)
