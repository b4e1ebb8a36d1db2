"""What the door costs before a real engine: answers through it and straight from the engine, in turns, same engine.

    python -m benchmarks.serve.serve_engine TARGET [--requests 1 8 32 64] [--tokens 128] [--rounds 3] [-- SERVE OPTIONS]

`halfbyte serve TARGET` starts the engine (llama.cpp, or what the options after `--` say) with one tenant whose limits
count tokens and prices. The engine's own port is found among the door's child processes. Each round asks the same
prompts of both, so many at once, streamed and greedy; tokens a second is what the engine counted over the round's wall
time. The door is idle while the engine is asked alone. Needs psutil.
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

from benchmarks.table import record, show

PROMPTS = Path(__file__).parents[2] / "examples/tiny-glm/tasks/reasoning.jsonl"


def main() -> None:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="", help="what the row should say of the machine")
    asked = parser.parse_args(words[:cut])
    with tempfile.TemporaryDirectory() as folder:
        _run(asked, words[cut + 1 :], Path(folder))


def _run(asked: argparse.Namespace, options: list[str], folder: Path) -> None:
    halfbyte = [sys.executable, "-m", "halfbyte"]
    state = str(folder / "state")
    limits = ["--tokens-per-day", str(10**12), "--output-tokens-per-minute", str(10**11), "--usd-per-day", "1000000"]
    added = subprocess.check_output([*halfbyte, "tenants", "add", "bench", "--state", state, *limits, "--json"])
    key = json.loads(added)["key"]
    price = {"prompt": 0.1, "cached": 0.01, "output": 0.4, "reasoning": 0.4}
    (folder / "price.json").write_text(json.dumps({"usd_per_million_tokens": {"bench": price}}))
    serve = [*halfbyte, "serve", asked.target, "--state", state, "--port", "0", "--served-model-name", "bench"]
    began = time.monotonic()
    log = folder / "log"
    with open(log, "wb") as said:
        door = subprocess.Popen([*serve, "--price", str(folder / "price.json"), *options], stdout=said, stderr=said)
    try:
        urls = {"door": asyncio.run(_ready(door.pid, log)), "engine": ""}
        start_s = time.monotonic() - began
        urls["engine"] = asyncio.run(_engine(door.pid))
        print(f"ready after {start_s:.1f} s, engine at {urls['engine']}", flush=True)
        rows = []
        for at_once in asked.requests:
            asyncio.run(_round(urls["engine"], key, at_once, asked.tokens))  # warms its batch size up
            runs: dict[str, list[dict[str, float]]] = {"engine": [], "door": []}
            for turn in range(asked.rounds):
                for name in ("engine", "door") if turn % 2 else ("door", "engine"):
                    before = _cpu_s(door.pid)
                    found = asyncio.run(_round(urls[name], key, at_once, asked.tokens))
                    runs[name].append(found | {"door_cpu_s": _cpu_s(door.pid) - before})
            row: dict[str, Any] = {"requests": at_once}
            for name, found_all in runs.items():
                for figure in ("tokens_per_s", "ttft_ms", "tpot_ms"):
                    row[f"{name}_{figure}"] = statistics.median(run[figure] for run in found_all)
            pairs = zip(runs["door"], runs["engine"], strict=True)
            row["ratio"] = statistics.median(own["tokens_per_s"] / bare["tokens_per_s"] for own, bare in pairs)
            spent = [1e6 * run["door_cpu_s"] / run["tokens"] for run in runs["door"]]
            row["door_us_per_token"] = statistics.median(spent)
            rows.append(row)
            print(json.dumps(row), flush=True)
        columns = [
            "requests",
            "engine tok/s",
            "door tok/s",
            "ratio",
            "limit",
            "TTFT ms",
            "door's",
            "door's CPU us/token",
        ]
        cells = []
        for row in rows:
            rates = [f"{row[f'{name}_tokens_per_s']:.0f}" for name in ("engine", "door")]
            first = [f"{row[f'{name}_ttft_ms']:.1f}" for name in ("engine", "door")]
            cell = [str(row["requests"]), *rates, f"{row['ratio']:.3f}", "0.97", *first]
            cells.append([*cell, f"{row['door_us_per_token']:.0f}"])
        show(
            f"{Path(asked.target).name}, {asked.tokens} tokens an answer; load {os.getloadavg()[0]:.1f}", columns, cells
        )
        record("serve_engine", {"note": asked.note, "options": options, "start_s": start_s, "rows": rows})
    except BaseException:
        print(log.read_text(errors="replace")[-6000:])
        raise
    finally:
        door.send_signal(signal.SIGTERM)
        door.wait(60)


async def _ready(pid: int, log: Path) -> str:
    """The door's address, when it lets requests in."""
    import aiohttp

    async with aiohttp.ClientSession() as client:
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            for connection in _listening(psutil.Process(pid)):
                url = f"http://127.0.0.1:{connection}"
                try:
                    async with client.get(f"{url}/ready") as answer:
                        if answer.status == 200:
                            return url
                except aiohttp.ClientError:
                    pass
            await asyncio.sleep(0.2)
    raise SystemExit(log.read_text(errors="replace")[-3000:])


async def _engine(pid: int) -> str:
    import aiohttp

    async with aiohttp.ClientSession() as client:
        for child in psutil.Process(pid).children(recursive=True):
            for port in _listening(child):
                try:
                    async with client.get(f"http://127.0.0.1:{port}/v1/models") as answer:
                        if answer.status == 200:
                            return f"http://127.0.0.1:{port}"
                except aiohttp.ClientError:
                    pass
    raise SystemExit("none of the door's children answers /v1/models")


def _listening(process: "psutil.Process") -> list[int]:
    try:
        found = process.net_connections(kind="tcp")
    except psutil.Error:
        return []
    return [connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN]


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def _round(url: str, key: str, at_once: int, tokens: int) -> dict[str, float]:
    import aiohttp

    prompts = [json.loads(line)["messages"][:1] for line in PROMPTS.read_text().splitlines()[:at_once]]
    firsts: list[float] = []
    paces: list[float] = []
    counted = 0

    async def one(client: aiohttp.ClientSession, messages: Any) -> None:
        nonlocal counted
        ask = {"model": "bench", "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True}
        ask |= {"ignore_eos": True, "stream_options": {"include_usage": True}}
        began = time.monotonic()
        first = last = 0.0
        usage = 0
        async with client.post(f"{url}/v1/chat/completions", json=ask) as answer:
            if answer.status != 200:
                raise SystemExit(f"{url}: {answer.status} {await answer.text()}")
            async for line in answer.content:
                if b'"delta"' in line and b'"content":"' in line.replace(b": ", b":"):
                    last = time.monotonic()
                    first = first or last
                if b'"completion_tokens"' in line:
                    usage = json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"]
        counted += usage
        firsts.append(1000 * ((first or time.monotonic()) - began))
        paces.append(1000 * (last - first) / max(usage - 1, 1))

    headers = {"authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as client:
        began = time.monotonic()
        await asyncio.gather(*(one(client, prompts[number % len(prompts)]) for number in range(at_once)))
        spent = time.monotonic() - began
    return {
        "tokens": counted,
        "tokens_per_s": counted / spent,
        "ttft_ms": statistics.median(firsts),
        "tpot_ms": statistics.median(paces),
    }


if __name__ == "__main__":
    main()
