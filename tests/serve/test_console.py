"""The console in a real browser: a key is entered, a model answers with reasoning and a call, usage is the ledger's."""

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import page, program

from serve.doors import MODEL, add_tenant, door, usage
from serve.fakes import Fake, chunk, fake_upstream, usage_chunk


def _call(**more: object) -> dict[str, object]:
    return {"tool_calls": [{"index": 0, **more}]}


SCRIPT = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "Seven by "}),
    chunk({"reasoning_content": "six."}),
    chunk({"content": "It is <b>42</b>"}),
    chunk(_call(id="c1", type="function", function={"name": "calculate", "arguments": '{"expression"'})),
    chunk(_call(function={"arguments": ': "6*7"}'})),
    chunk({}, finish_reason="tool_calls"),
    usage_chunk(11, 9),
    "data: [DONE]\n\n",
]


@pytest.mark.skipif(program() is None, reason="no Chromium here")
def test_a_conversation_and_its_price(tmp_path: Path) -> None:
    state, fake = tmp_path / "state", Fake()
    fake.script = SCRIPT
    key = add_tenant(state, "ada", "--tokens-per-day", "100000")
    with (
        fake_upstream(fake),
        door(MODEL, "--upstream", fake.url, "--state", str(state), log=tmp_path / "log") as running,
    ):
        asyncio.run(_talk(running.url, key, tmp_path))
    assert usage(state)["totals"]["output_tokens"] == 9
    assert [tool["function"]["name"] for tool in fake.seen[0]["tools"]] == ["calculate"]


async def _talk(url: str, key: str, folder: Path) -> None:
    async with page(f"{url}/console", folder / "profile") as seen:
        await seen.until("document.getElementById('who').className === 'error'")  # no key yet
        await seen.run(f"$('key').value = {json.dumps(key)}; $('key').onchange()")
        await seen.until("document.getElementById('who').textContent === 'ada at m'")
        await seen.run("document.querySelector('[data-tab=chat]').click(); $('tools').checked = true")
        await seen.run("$('text').value = 'What is 6 * 7?'; $('send').click()")
        await seen.until("document.getElementById('figures').textContent.startsWith('11 + 9 tokens')")
        assert await seen.run("document.querySelector('.reasoning').textContent") == "Seven by six."
        assert await seen.run("document.querySelector('.content').textContent") == "It is <b>42</b>"
        assert await seen.run("document.querySelector('.call').textContent") == 'calculate({"expression": "6*7"})'
        await seen.picture(folder / "chat.png")
        await seen.run("document.querySelector('[data-tab=usage]').click()")
        await seen.until("document.getElementById('usage-sum').textContent.includes('11')")
        assert "9" in await seen.run("document.getElementById('usage-rows').textContent")
        assert await seen.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        assert {urlsplit(asked).netloc for asked in seen.asked if asked.startswith("http")} == {urlsplit(url).netloc}
        unexpected = [one for one in seen.complaints if "401" not in one and "403" not in one and "favicon" not in one]
        assert unexpected == []
