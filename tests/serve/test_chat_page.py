"""llama.cpp's own chat page behind the door: it asks for a key, and what is said there is in the ledger."""

import asyncio
import gzip
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from browser import Page, page, program

from serve.doors import MODEL, add_tenant, door, usage
from serve.fakes import Fake, fake_upstream

TINY = str(Path(__file__).parents[2] / "examples" / "tiny-glm")
ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}


@pytest.mark.skipif(program() is None, reason="no Chromium here")
def test_a_conversation_there_is_charged(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    state = tmp_path / "state"
    key = add_tenant(state, "ada", "--tokens-per-day", "100000")
    options = ("--state", str(state), "--context-length", "2048")
    with door(TINY, *options, log=tmp_path / "log", ready_s=60, HALFBYTE_CACHE=str(tmp_path / "cache")) as running:
        client = running.client("none")
        assert "llama.cpp" in client.get("/console").text
        plain = client.get("/", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        packed = client.send(client.build_request("GET", "/"), stream=True)
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join(packed.iter_raw())) == plain.content
        assert client.get("/props").status_code == 401
        known = running.client(key).get("/props")
        assert known.json()["model_path"] == known.json()["model_alias"] == "tiny-glm"
        assert ".gguf" not in known.text
        for path in ("/_app/%2e%2e/props", "/_app/none.js", "/slots", "/v1/props"):
            assert httpx.get(running.url + path).status_code == 404, path
        assert client.post("/none").status_code == 404
        asyncio.run(_talk(running.url, key, tmp_path))
    (row,) = usage(state)["rows"]
    assert (row["tenant"], row["requests"]) == ("ada", 1)
    assert row["output_tokens"] > 0


async def _talk(url: str, key: str, folder: Path) -> None:
    async with page(f"{url}/", folder / "profile") as seen:
        await seen.until("document.body.innerText.includes('Enter API Key')")
        await seen.run("[...document.querySelectorAll('button')].find(b => b.innerText === 'Enter API Key').click()")
        await _type(seen, "input", key)
        await seen.until("document.body.innerText.includes('tiny-glm')")
        await _type(seen, "textarea", "Compute 3+4.")
        own = {"authorization": f"Bearer {key}"}
        used = f"fetch('/v1/usage', {{headers: {own}}}).then(found => found.json())"
        await seen.until(f"{used}.then(found => found.totals.requests === 1)", 60)
        await seen.until("/\\d t\\/s/.test(document.body.innerText)")
        assert "Compute 3+4." in await seen.run("document.body.innerText")
        await seen.picture(folder / "chat.png")
        assert {urlsplit(asked).netloc for asked in seen.asked if asked.startswith("http")} == {urlsplit(url).netloc}


async def _type(seen: Page, element: str, text: str) -> None:
    """Text and Enter."""
    await seen.until(f"document.querySelector('{element}') !== null")
    await seen.run(f"document.querySelector('{element}').focus()")
    await seen.tell("Input.insertText", text=text)
    await seen.until(f"document.querySelector('{element}').value === {text!r}")
    await seen.tell("Input.dispatchKeyEvent", type="keyDown", text="\r", **ENTER)
    await seen.tell("Input.dispatchKeyEvent", type="keyUp", **ENTER)


def test_other_engines_have_none(tmp_path: Path) -> None:
    fake = Fake()
    with fake_upstream(fake), door(MODEL, "--upstream", fake.url, log=tmp_path / "log") as running:
        client = running.client("any")
        assert client.get("/").status_code == client.get("/props").status_code == 404
        assert "llama.cpp" not in client.get("/console").text
