"""What a real API server says: right objects are accepted, strictly, and of the mistakes those that it can know.

Without a server these tests are skipped, each by name, and the reason says what is missing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.apiserver.definitions import CUSTOM
from deploy.apiserver.found import Found, find
from deploy.apiserver.server import ApiServer, running
from deploy.test_mistakes import MISTAKES, RIGHT, called

FOUND = find()
pytestmark = pytest.mark.skipif(not isinstance(FOUND, Found), reason=str(FOUND))

BEYOND = {
    "cohort-lends-without-parent",
    "lws-name-too-long",
    "lws-queue-label-in-template",
    "lws-size-zero",
    "queue-lends-more-than-it-has",
    "queue-no-namespace",
    "queue-quota-negative",
    "queue-resource-twice",
    "queue-resources-order",
    "rule-record-and-alert",
    "scaled-object-fallback-over-max",
    "scaled-object-no-query",
    "scaled-object-window",
}
"""Mistakes that the server accepts: webhooks refuse them, or a controller stands still. They are ours to find."""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    assert isinstance(FOUND, Found)
    with running(FOUND) as found:
        yield found


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return document


def custom(paths: list[Path]) -> list[Path]:
    """Those of kinds that have a definition."""
    read_once = [(path, read(path)) for path in paths]
    return [path for path, one in read_once if (one["apiVersion"].rpartition("/")[0], one["kind"]) in CUSTOM]


def test_every_kind_has_a_right_object() -> None:
    assert {read(path)["kind"] for path in custom(RIGHT)} == {kind for _, kind in CUSTOM}


@pytest.mark.parametrize("path", custom(RIGHT), ids=called)
def test_what_is_right_is_accepted(server: ApiServer, path: Path) -> None:
    verdict = server.apply(read(path))
    assert (verdict.accepted, verdict.message, verdict.warning) == (True, "", "")


@pytest.mark.parametrize("path", [path for path in custom(MISTAKES) if path.stem not in BEYOND], ids=called)
def test_a_mistake_is_refused(server: ApiServer, path: Path) -> None:
    verdict = server.apply(read(path))
    assert not verdict.accepted
    assert verdict.message


@pytest.mark.parametrize("path", [path for path in custom(MISTAKES) if path.stem in BEYOND], ids=called)
def test_what_the_server_cannot_know_is_accepted(server: ApiServer, path: Path) -> None:
    """So that the list above stays the truth: a rule that a definition gains leaves it."""
    assert server.apply(read(path)).accepted


def test_an_old_version_is_said(server: ApiServer) -> None:
    queue = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "ClusterQueue", "metadata": {"name": "a"}}
    assert "deprecated" in server.apply(queue).warning
