"""Who is scraped: the doors by their service, the engines by their pods."""

from collections.abc import Iterator, Sequence

from halfbyte.deploy.facts import Served
from halfbyte.deploy.frontdoor import DOOR, SCRAPE_SECRET
from halfbyte.deploy.objects import MODEL_LABEL, Document, labels, metadata
from halfbyte.deploy.platform import Platform
from halfbyte.deploy.serving import ENGINE

INTERVAL = "15s"
API = "monitoring.coreos.com/v1"


def monitors(platform: Platform, served: Sequence[Served]) -> Iterator[Document]:
    yield {
        "apiVersion": API,
        "kind": "ServiceMonitor",
        "metadata": metadata("halfbyte-door", platform.namespace, labels("halfbyte-door", DOOR)),
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/component": DOOR, "app.kubernetes.io/part-of": "halfbyte"}},
            "endpoints": [
                {
                    "port": "http",
                    "path": "/metrics",
                    "interval": INTERVAL,
                    "authorization": {"type": "Bearer", "credentials": {"name": SCRAPE_SECRET, "key": "key"}},
                }
            ],
        },
    }
    yield {
        "apiVersion": API,
        "kind": "PodMonitor",
        "metadata": metadata("halfbyte-engine", platform.namespace, labels("halfbyte-engine", ENGINE)),
        "spec": {
            "selector": {
                "matchLabels": {"app.kubernetes.io/component": ENGINE, "app.kubernetes.io/part-of": "halfbyte"}
            },
            "podTargetLabels": [MODEL_LABEL],
            "podMetricsEndpoints": [{"port": "http", "path": "/metrics", "interval": INTERVAL}],
        },
    }
