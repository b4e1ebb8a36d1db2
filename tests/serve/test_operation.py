"""What whoever runs a door sees: metrics that promtool passes, the OpenAPI document, the console."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from browser import program
from hypothesis import HealthCheck, Phase, given, settings

from serve.doors import MODEL, RunningDoor, add_tenant, door
from serve.fakes import fake_upstream

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningDoor, httpx.Client]]:
    folder = tmp_path_factory.mktemp("operation")
    key = add_tenant(folder / "state", "a")
    options = ("--state", str(folder / "state"), "--metrics-key-env", "SCRAPER")
    with (
        fake_upstream() as fake,
        door(MODEL, "--upstream", fake.url, *options, log=folder / "log", SCRAPER="s3cret") as found,
        found.client(key) as client,
    ):
        yield found, client


def test_metrics(running: tuple[RunningDoor, httpx.Client]) -> None:
    found, client = running
    for stream in (True, False):
        client.post(CHAT, json=ASK | {"stream": stream})
    client.post(CHAT, json=ASK | {"model": "x" * 50})
    found.client("wrong").post(CHAT, json=ASK)
    assert client.get("/metrics").status_code == 403
    text = httpx.get(f"{found.url}/metrics", headers={"authorization": "Bearer s3cret"}).text
    assert 'halfbyte_tokens_total{model="m",tenant="a",type="output"} 3.0' in text
    assert 'halfbyte_refused_total{reason="invalid_api_key",tenant=""} 1.0' in text
    assert 'halfbyte_time_to_first_token_seconds_count{model="m",tenant="a"}' in text
    assert "xxxx" not in text
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool is installed")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_no_request_that_the_document_allows_breaks_the_door(running: tuple[RunningDoor, httpx.Client]) -> None:
    found, client = running
    schema = schemathesis.openapi.from_url(f"{found.url}/openapi.json")
    assert {CHAT, "/v1/usage", "/health"} <= set(client.get("/openapi.json").json()["paths"])
    quick = settings(
        max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
    )
    seen: list[int] = []
    for result in schema.get_all_operations():
        operation: Any = result.ok()

        @quick
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            answer = case.call(headers={"authorization": client.headers["authorization"]})
            seen.append(answer.status_code)
            assert answer.status_code < 500 or answer.status_code == 503
            assert "x-request-id" in answer.headers

        ask()
    assert len(seen) > 50


def test_the_console_is_one_page_that_asks_nobody_else(running: tuple[RunningDoor, httpx.Client]) -> None:
    found, _ = running
    page = httpx.get(f"{found.url}/console")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert re.findall(r"https?://", page.text) == []
    assert "localStorage" not in page.text
    assert "sessionStorage" not in page.text
    chromium = program()
    if chromium is None:
        pytest.skip("no chromium is installed")
    shot = Path(found.log).with_name("console.png")
    words = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--screenshot={shot}", "--window-size=1200,900"]
    subprocess.run([*words, f"{found.url}/console"], check=True, capture_output=True, timeout=120)
    assert shot.stat().st_size > 5000
