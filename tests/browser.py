"""A headless Chromium that is told what to do, over its DevTools protocol."""

import asyncio
import base64
import itertools
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab. asked: addresses that it requested. complaints: what its console said that is no information."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._ids = socket, itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.asked: list[str] = []
        self.complaints: list[str] = []

    async def listen(self) -> None:
        async for message in self._socket:
            found = message.json()
            if "id" in found:
                self._waiting.pop(found["id"]).set_result(found)
            elif found["method"] == "Network.requestWillBeSent":
                self.asked.append(found["params"]["request"]["url"])
            elif found["method"] == "Log.entryAdded" and found["params"]["entry"]["level"] in ("warning", "error"):
                self.complaints.append(found["params"]["entry"]["text"])
            elif found["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(found["params"]["exceptionDetails"]))

    async def tell(self, method: str, **parameters: Any) -> Any:
        number = next(self._ids)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        found = await asyncio.wait_for(self._waiting[number], 20)
        assert "error" not in found, found
        return found["result"]

    async def run(self, script: str) -> Any:
        """The value of an expression in the page, a promise awaited."""
        found = await self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, script: str, seconds: float = 15) -> Any:
        """The first value of an expression that is true. Raises AssertionError with the page's text."""
        for _ in range(int(seconds / 0.05)):
            if value := await self.run(script):
                return value
            await asyncio.sleep(0.05)
        raise AssertionError(f"never so: {script}\n{await self.run('document.body.innerText')}")

    async def picture(self, file: Path) -> None:
        found = await self.tell("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(found["data"]))


@asynccontextmanager
async def page(url: str, profile: Path) -> AsyncIterator[Page]:
    """The page at `url`, loaded."""
    words = [str(program()), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    words += [f"--user-data-dir={profile}", "--window-size=1100,900", "--no-first-run", "about:blank"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        told = next(filter(None, (re.search(r"ws://127\.0\.0\.1:(\d+)/", line) for line in process.stderr)))
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://127.0.0.1:{told[1]}/json/list") as answer:
                tab = next(one for one in await answer.json() if one["type"] == "page")
            async with client.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=1 << 26) as socket:
                found = Page(socket)
                listening = asyncio.ensure_future(found.listen())
                for domain in ("Page", "Network", "Log", "Runtime"):
                    await found.tell(f"{domain}.enable")
                await found.tell("Page.navigate", url=url)
                await found.until("document.readyState === 'complete'")
                yield found
                listening.cancel()
    finally:
        process.kill()
        process.wait(10)
