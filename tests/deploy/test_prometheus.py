"""A real Prometheus scrapes a real door under the load of two tenants: every query runs, and cost is the ledger's."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from serve.doors import add_tenant, door, free_port, usage
from serve.fakes import chunk, fake_upstream, usage_chunk

from .conftest import documents

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")

MODEL = "frontier"
KEY = "scrape-key"
KINDS = ("prompt", "cached", "output", "reasoning")
VARIABLES = {"$model": ".*", "$tenant": ".*", "$__rate_interval": "1m", "$__range": "5m"}


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[dict[str, Any]]:
        for variable, value in VARIABLES.items():
            expr = expr.replace(variable, value)
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expr}, timeout=30).json()
        assert answer["status"] == "success", (expr, answer)
        return list(answer["data"]["result"])


@contextmanager
def prometheus(folder: Path, target: str, groups: dict[str, Any]) -> Iterator[Prometheus]:
    """It scrapes one door each second, under the labels that the monitors give."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(groups))
    scrape = {
        "job_name": "doors",
        "authorization": {"credentials": KEY},
        "static_configs": [{"targets": [target], "labels": {"namespace": "llm", "service": f"door-{MODEL}"}}],
    }
    settings = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = {"global": settings, "rule_files": ["rules.yaml"], "scrape_configs": [scrape]}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    words = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb"]
    with open(folder / "prometheus.log", "w") as log:
        process = subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    found = Prometheus(f"http://127.0.0.1:{port}")
    try:
        until = time.monotonic() + 60
        while True:
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < until
            try:
                if httpx.get(f"{found.url}/-/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield found
    finally:
        process.terminate()
        process.wait(30)


def ask(client: httpx.Client, number: int) -> None:
    events = [chunk({"content": "a"}), chunk({"reasoning_content": "b"})]
    events.append(
        usage_chunk(
            10 + number,
            5 + number % 3,
            prompt_tokens_details={"cached_tokens": number % 4},
            completion_tokens_details={"reasoning_tokens": number % 2},
        )
    )
    document = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    body = document | {"max_tokens": 64, "fake": {"events": [*events, "data: [DONE]\n\n"]}}
    assert client.post("/v1/chat/completions", json=body).status_code == 200


def test_every_query_runs_and_cost_is_the_ledger_s(written: Path, tmp_path: Path) -> None:
    state, price = tmp_path / "state", tmp_path / "price.json"
    keys = {name: add_tenant(state, name) for name in ("research", "product")}
    config = next(one for one in documents(written) if one["metadata"]["name"] == "halfbyte-door")
    price.write_text(config["data"]["prices.json"])
    groups = yaml.safe_load((written / "rule-tests/rules.yaml").read_text())
    for group in groups["groups"]:
        group.pop("interval", None)
    options = ("--state", str(state), "--price", str(price), "--metrics-key-env", "SCRAPE_KEY")
    with (
        fake_upstream() as fake,
        door(MODEL, "--upstream", f"{fake.url}/v1", *options, log=tmp_path / "log", SCRAPE_KEY=KEY) as running,
        prometheus(tmp_path, running.url.removeprefix("http://"), groups) as found,
    ):
        clients = {name: running.client(key) for name, key in keys.items()}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: ask(clients["research" if number % 3 else "product"], number), range(60)))
        ledger = usage(state, "--by", "tenant")
        wanted = {(row["tenant"], kind): row[f"{kind}_tokens"] for row in ledger["rows"] for kind in KINDS}
        wanted = {key: tokens for key, tokens in wanted.items() if tokens}
        panels = queries(written)
        seen: dict[tuple[str, str], float] = {}
        until = time.monotonic() + 30
        while seen != wanted and time.monotonic() < until:
            time.sleep(0.5)
            rows = found.query(panels["Tokens by tenant and kind, since the doors started"])
            seen = {(row["metric"]["tenant"], row["metric"]["type"]): float(row["value"][1]) for row in rows}
        assert seen == wanted
        dollars = found.query(panels["Dollars by tenant, since the doors started"])
        paid = {row["metric"]["tenant"]: float(row["value"][1]) for row in dollars}
        assert paid == pytest.approx({row["tenant"]: row["usd"] for row in ledger["rows"]}, rel=1e-9)
        for expr in [*panels.values(), *(rule["expr"] for group in groups["groups"] for rule in group["rules"])]:
            found.query(expr)
        recorded: set[str] = set()
        until = time.monotonic() + 30
        while (
            recorded != set(keys) and time.monotonic() < until
        ):  # a rate needs a second scrape and the next evaluation
            time.sleep(0.5)
            recorded = {row["metric"]["tenant"] for row in found.query("tenant:halfbyte_tokens:rate5m")}
        assert recorded == set(keys)
        healthy = httpx.get(f"{found.url}/api/v1/rules", timeout=30).json()["data"]["groups"]
        assert {rule["health"] for group in healthy for rule in group["rules"]} == {"ok"}


def queries(folder: Path) -> dict[str, str]:
    """Title -> first query of each panel; the others by title and number."""
    found = {}
    for one in documents(folder):
        for name, text in (one.get("data") or {}).items():
            if not (name.endswith(".json") and one["metadata"]["labels"].get("grafana_dashboard")):
                continue
            for panel in json.loads(text)["panels"]:
                for number, target in enumerate(panel["targets"]):
                    found[panel["title"] + (f" {number}" if number else "")] = target["expr"]
    assert len(found) > 12
    return found
