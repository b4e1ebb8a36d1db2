"""The server as a process, with every definition in place.

Loading the definitions takes minutes, a restart on the loaded etcd folder seconds: the folder is kept in the cache.
"""

import os
import ssl
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from serve.doors import free_port

from deploy.apiserver import certificates
from deploy.apiserver.definitions import Definition, definitions
from deploy.apiserver.found import Found, cache

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
STRICT = {"fieldManager": "halfbyte-tests", "fieldValidation": "Strict", "dryRun": "All", "force": "true"}
APPLY = {"content-type": "application/apply-patch+yaml"}  # JSON is YAML
OFF = "NamespaceLifecycle,MutatingAdmissionWebhook,ValidatingAdmissionWebhook,"
OFF += "ValidatingAdmissionPolicy,MutatingAdmissionPolicy"
PATIENCE = 300.0


class Verdict(NamedTuple):
    """status: of HTTP, 200 or 201 if the object is accepted. warning: such as that a version is deprecated."""

    status: int
    message: str
    warning: str

    @property
    def accepted(self) -> bool:
        return self.status in (200, 201)


class ApiServer:
    """A running server. plurals: (group, kind) -> plural, and whether objects belong to a namespace."""

    def __init__(self, client: httpx.Client, known: list[Definition]) -> None:
        self.client = client
        specs = [one["spec"] for one in known]
        self.plurals = {
            (spec["group"], spec["names"]["kind"]): (spec["names"]["plural"], spec["scope"] == "Namespaced")
            for spec in specs
        }

    def knows(self, document: dict[str, Any]) -> bool:
        return (document["apiVersion"].partition("/")[0], document["kind"]) in self.plurals

    def apply(self, document: dict[str, Any]) -> Verdict:
        """What the server says of an object: a strict server-side apply, dry run. KeyError for a kind it never saw."""
        plural, namespaced = self.plurals[document["apiVersion"].partition("/")[0], document["kind"]]
        metadata = document["metadata"]
        within = f"namespaces/{metadata.get('namespace', 'default')}/" if namespaced else ""
        url = f"/apis/{document['apiVersion']}/{within}{plural}/{metadata['name']}"
        answer = self.client.patch(url, params=STRICT, json=document, headers=APPLY)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        message = str(answer.json().get("message", "")) if is_json else answer.text
        return Verdict(answer.status_code, message, answer.headers.get("warning", ""))


@contextmanager
def running(found: Found) -> Iterator[ApiServer]:
    """A server with the definitions; the first time they are loaded and kept."""
    digest, known = definitions(found.definitions)
    archive = cache() / f"etcd-{digest}.tar"
    if not archive.exists():
        _load(found, known, archive)
    with tempfile.TemporaryDirectory(prefix="apiserver") as name:
        folder = Path(name)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        with _processes(found, folder) as client:
            server = ApiServer(client, known)
            _wait_until(lambda: all(_served(server)), "serves every definition")
            yield server


def _load(found: Found, known: list[Definition], archive: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="apiserver") as name:
        folder = Path(name)
        with _processes(found, folder) as client, ThreadPoolExecutor(4) as pool:
            for answer in pool.map(lambda one: client.post(DEFINITIONS, json=one), known):
                assert answer.status_code == 201, answer.text
            _wait_until(lambda: all(_established(client)), "establishes every definition")
        half = archive.with_suffix(f".{os.getpid()}")
        with tarfile.open(half, "w") as tar:
            tar.add(folder / "data", "data")
        half.rename(archive)


def _established(client: httpx.Client) -> Iterator[bool]:
    for one in client.get(DEFINITIONS).json()["items"]:
        conditions = (one.get("status") or {}).get("conditions") or ()
        yield any(said["type"] == "Established" and said["status"] == "True" for said in conditions)


def _served(server: ApiServer) -> Iterator[bool]:
    """Whether the newest version of each kind answers."""
    newest = {}
    for one in server.client.get(DEFINITIONS, params={"limit": 100}).json()["items"]:
        newest[one["spec"]["names"]["plural"]] = (one["spec"]["group"], one["spec"]["versions"][-1]["name"])
    for plural, (group, version) in newest.items():
        yield server.client.get(f"/apis/{group}/{version}/{plural}").status_code == 200


@contextmanager
def _processes(found: Found, folder: Path) -> Iterator[httpx.Client]:
    """etcd on `folder`/data, and the server on it; both end here."""
    etcd, port = _etcd(found, folder), free_port()
    url = f"https://127.0.0.1:{port}"
    certificates.write(folder, url)
    config = folder / "kubeconfig"
    words = [found.server, f"--etcd-servers={etcd[1]}", "--bind-address=127.0.0.1", f"--secure-port={port}"]
    words += [f"--tls-cert-file={folder}/server.crt", f"--tls-private-key-file={folder}/server.key"]
    words += [f"--client-ca-file={folder}/ca.crt", f"--kubeconfig={config}", "--authentication-skip-lookup"]
    words += [f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}"]
    words += ["--enable-priority-and-fairness=false", f"--disable-admission-plugins={OFF}"]
    with ExitStack() as stack:
        stack.enter_context(_process(etcd[0], folder / "etcd.log"))
        server = stack.enter_context(_process(list(map(str, words)), folder / "server.log"))
        trust = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        trust.load_cert_chain(folder / "client.crt", folder / "client.key")
        client = stack.enter_context(httpx.Client(base_url=url, verify=trust, timeout=120, trust_env=False))
        _wait_until(lambda: server.poll() is not None or _live(client), "answers")
        assert server.poll() is None, (folder / "server.log").read_text("utf-8", "replace")[-2000:]
        yield client


def _etcd(found: Found, folder: Path) -> tuple[list[str], str]:
    """Its command and its URL."""
    url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    words = [str(found.etcd), "--data-dir", str(folder / "data"), "--unsafe-no-fsync", "--force-new-cluster"]
    words += ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer]
    words += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    return words, url


@contextmanager
def _process(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out, subprocess.Popen(words, stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _live(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def _wait_until(ready: Any, what: str) -> None:
    start = time.monotonic()
    while not ready():
        assert time.monotonic() - start < PATIENCE, f"the API server never {what}"
        time.sleep(0.2)
