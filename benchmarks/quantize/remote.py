"""Quantizing what is not here: from an HTTP server with ranges, from S3, into S3; and FP8; against a run from disk.

    python -m benchmarks.quantize.remote [--gigabytes 6] [--folder FOLDER] [--repeats 5] [--kills 10] [--without-s3]

Source: random BF16 weights. Peer: the same command on the same files in a folder, cold. Both run so many times in
turn; medians are shown. All run on this machine, the servers too, so the network costs nothing and the servers' work
takes cores that a remote one would not. The HTTP server leaves its bytes to the kernel (sendfile), states no hash, so
that the client hashes what comes, and counts what it sends. Its processor seconds are told, and what it gives, cold, to
a client that does nothing else stands beside as the limit. S3 is moto, which is no fast server; its limit stands beside
too. --kills ends the run from HTTP at so many random moments; the bytes at the end are compared with those of the run
from disk. Modules are compiled in runs that are not counted, as an installation has them.
"""

import argparse
import filecmp
import http.client
import http.server
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import socketserver
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from benchmarks.quantize.quantize import forget, make_checkpoint
from benchmarks.table import record, show
from halfbyte.checkpoint.header import serialize_header
from halfbyte.checkpoint.source import Checkpoint

PIECE = 8 << 20
STREAMS = 8
SHARD = "500MB"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Files with byte ranges, sent by the kernel."""

    protocol_version = "HTTP/1.1"
    sent = multiprocessing.Value("q")

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        first, last = (int(wanted[1]), min(int(wanted[2]), size - 1)) if wanted else (0, size - 1)
        self.send_response(206 if wanted else 200)
        self.send_header("content-length", str(last - first + 1))
        self.send_header("etag", f'"{path.stat().st_mtime_ns:x}"')
        if wanted:
            self.send_header("content-range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        with self.sent:
            self.sent.value += last - first + 1
        with open(path, "rb") as file:
            while first <= last:
                first += os.sendfile(self.connection.fileno(), file.fileno(), first, last - first + 1)

    def log_message(self, *_: Any) -> None:
        pass


def serve_files(folder: str, port: Any) -> None:
    os.chdir(folder)
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Ranges)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients are killed on purpose
    server.daemon_threads = True
    port.send(server.server_address[1])
    server.serve_forever()


def serve_s3(port: Any) -> None:
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port.send(server.get_host_and_port()[1])
    signal.pause()


def started(target: Any, *arguments: Any) -> tuple[multiprocessing.Process, str]:
    """A server in a process of its own, and its address."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    return process, f"http://127.0.0.1:{ours.recv()}"


def words(source: str, out: str) -> list[str]:
    return [sys.executable, "-m", "halfbyte", "quantize", source, out, "--json", "--max-shard-size", SHARD]


def run(source: str, out: str) -> dict[str, Any]:
    began = time.monotonic()
    done = subprocess.run(words(source, out), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result | {"wall_seconds": time.monotonic() - began}


def same(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.glob("*.safetensors"))
    assert names == sorted(path.name for path in other.glob("*.safetensors"))
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


def killed(source: str, out: Path, times: int, seconds: float) -> tuple[int, float]:
    """Kills, and the wall seconds of all runs together."""
    chance, kills, began = random.Random(7), 0, time.monotonic()
    while True:
        running = subprocess.Popen(words(source, str(out)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert running.wait(chance.uniform(0.3, 0.8) * seconds if kills < times else None) == 0
            return kills, time.monotonic() - began
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            kills += 1


def into_fp8(source: Path, folder: Path) -> int:
    """The same model with its routed experts in FP8, tiles of 128 x 128. Returns its bytes."""
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    pool = np.clip(np.random.default_rng(0).standard_normal(1 << 22, np.float32) * 100, -448, 448)
    codes, total = pool.astype(ml_dtypes.float8_e4m3fn).view(np.uint8), 0
    weight_map: dict[str, str] = {}
    with Checkpoint.open(source) as checkpoint:
        for name in checkpoint.shards:
            tensors: list[tuple[str, str, tuple[int, ...], int]] = []
            contents: list[bytes | bytearray] = []
            for tensor in (one for one in checkpoint.tensors.values() if one.shard == name):
                if ".experts." in tensor.name:
                    rows, columns = tensor.shape
                    scales = (-(-rows // 128), -(-columns // 128))
                    tensors += [
                        (tensor.name, "F8_E4M3", tensor.shape, rows * columns),
                        (f"{tensor.name}_scale_inv", "F32", scales, 4 * scales[0] * scales[1]),
                    ]
                    contents.append(np.resize(codes, rows * columns).tobytes())
                    contents.append(np.full(scales, 2e-4, np.float32).tobytes())
                else:
                    content = bytearray(tensor.bytes)
                    checkpoint.read_into(tensor, memoryview(content))
                    tensors.append((tensor.name, tensor.dtype, tensor.shape, tensor.bytes))
                    contents.append(content)
            with open(folder / name, "wb") as file:
                file.write(serialize_header(tensors, {"format": "pt"}))
                file.writelines(contents)
            weight_map |= {tensor[0]: name for tensor in tensors}
            total += (folder / name).stat().st_size
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return total


def http_seconds(address: str, sizes: dict[str, int]) -> float:
    """What the server gives to a client that only reads, into one buffer a connection."""
    pieces = [(name, start) for name, size in sizes.items() for start in range(0, size, PIECE)]

    def read(number: int) -> None:
        client, buffer = http.client.HTTPConnection(address.removeprefix("http://")), bytearray(PIECE)
        for name, start in pieces[number::STREAMS]:
            client.request("GET", f"/source/{name}", headers={"range": f"bytes={start}-{start + PIECE - 1}"})
            answer = client.getresponse()
            while answer.readinto(buffer):
                pass
        client.close()

    began = time.monotonic()
    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(read, range(STREAMS)))
    return time.monotonic() - began


def processor_seconds(process: multiprocessing.Process) -> float:
    """Of a process that runs: user and system."""
    words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def children_seconds() -> float:
    """Of all children that have ended: user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def s3_seconds(client: Any, keys: dict[str, int]) -> float:
    """What the server gives to a client that only reads, eight pieces at a time."""
    pieces = [(key, start) for key, size in keys.items() for start in range(0, size, PIECE)]

    def get(piece: tuple[str, int]) -> None:
        key, start = piece
        client.get_object(Bucket="models", Key=key, Range=f"bytes={start}-{start + PIECE - 1}")["Body"].read()

    began = time.monotonic()
    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(get, pieces))
    return time.monotonic() - began


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--gigabytes", type=float, default=6)
    options.add_argument("--folder", type=Path)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--without-s3", action="store_true")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
        folder = Path(temporary)
        os.environ |= ENVIRONMENT | {"TMPDIR": temporary, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        source = folder / "source"
        size = make_checkpoint(source, chosen.gigabytes, hidden=4096, width=1536, layers=5)
        process, address = started(serve_files, str(folder))
        for where in (str(source), f"{address}/source"):
            run(where, str(folder / "warm"))
            shutil.rmtree(folder / "warm")
        runs = in_turn({"disk": str(source), "http": f"{address}/source"}, folder, source, chosen.repeats, process)
        results = {key: median_of(found) for key, found in runs.items()}
        forget(source)
        before = processor_seconds(process)
        alone = http_seconds(address, {path.name: path.stat().st_size for path in source.glob("*.safetensors")})
        alone_processor = processor_seconds(process) - before
        kills, with_kills = killed(f"{address}/source", folder / "killed", chosen.kills, results["http"]["seconds"])
        assert same(folder / "disk", folder / "killed")
        shutil.rmtree(folder / "killed")
        process.kill()
        fp8_bytes = into_fp8(source, folder / "fp8")
        forget(folder / "fp8")
        results["fp8"] = run(str(folder / "fp8"), str(folder / "fp8-out"))
        shutil.rmtree(folder / "fp8-out")
        shutil.rmtree(folder / "fp8")
        limit = None if chosen.without_s3 else with_s3(folder, source, results)
    peer = results["disk"]["wall_seconds"]
    sizes = {"fp8": fp8_bytes}
    limits = {"from HTTP": alone} | ({} if limit is None else {"from S3": limit})
    rows = []
    for key, label in (
        ("disk", "from disk"),
        ("http", "from HTTP"),
        ("s3", "from S3"),
        ("to_s3", "from disk into S3"),
        ("fp8", "FP8 from disk"),
    ):
        if key not in results:
            continue
        found = results[key]
        seconds = found["wall_seconds"]
        rate = sizes.get(key, size) / seconds / 1e9
        rows.append(
            [
                label,
                f"{seconds:.1f}",
                f"{rate:.2f}",
                "" if key == "fp8" else f"{peer / seconds:.2f}",
                f"{size / limits[label] / 1e9:.2f}" if label in limits else "",
                f"{found['peak_rss_bytes'] / 1e9:.2f}",
            ]
        )
    columns = ["", "seconds", "GB/s of source", "of the rate from disk", "server alone, GB/s", "peak GB"]
    show(f"{size / 1e9:.2f} GB of BF16", columns, rows)
    sent, server = (statistics.median(found[name] for found in runs["http"]) for name in ("sent", "server_seconds"))
    ours = {key: statistics.median(one["processor_seconds"] for one in found) for key, found in runs.items()}
    print(f"\nprocessor seconds: {ours['disk']:.1f} from disk, {ours['http']:.1f} from HTTP")
    print(f"from HTTP {sent / size:.2f} times the source was sent, in {server:.1f} processor seconds of the server")
    print(f"{kills} kills from HTTP, then the same bytes: {with_kills:.1f} s in all runs")
    kept = {key: {name: found[name] for name in ("wall_seconds", "peak_rss_bytes")} for key, found in results.items()}
    record(
        "remote",
        {"bytes": size, "fp8_bytes": fp8_bytes, "runs": kept, "s3_alone_seconds": limit, "kills": kills}
        | {"killed_seconds": with_kills, "sent_bytes": sent, "server_seconds": server, "processor_seconds": ours}
        | {"http_alone_seconds": alone, "http_alone_server_seconds": alone_processor}
        | {"all_wall_seconds": {key: [one["wall_seconds"] for one in found] for key, found in runs.items()}},
    )


def in_turn(
    places: dict[str, str], folder: Path, source: Path, repeats: int, server: multiprocessing.Process
) -> dict[str, list[dict[str, Any]]]:
    """Cold runs from each place, so many of each, whose bytes are those of the first; that output stays."""
    runs: dict[str, list[dict[str, Any]]] = {key: [] for key in places}
    for _ in range(repeats):
        for key, place in places.items():
            out = folder / "again" if (folder / key).exists() else folder / key
            forget(source)
            os.sync()  # what the run before left to be written is not part of this one
            before, sent, ours = processor_seconds(server), Ranges.sent.value, children_seconds()
            found = run(place, str(out))
            found |= {"server_seconds": processor_seconds(server) - before, "sent": Ranges.sent.value - sent}
            found["processor_seconds"] = children_seconds() - ours
            runs[key].append(found)
            assert same(folder / "disk", out)
            if out.name == "again" or key != "disk":
                shutil.rmtree(out)
    return runs


def median_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run in the middle, by its wall seconds."""
    return sorted(runs, key=lambda one: one["wall_seconds"])[len(runs) // 2]


def with_s3(folder: Path, source: Path, results: dict[str, Any]) -> float:
    """From and into moto. Returns the seconds of only reading."""
    import boto3

    process, address = started(serve_s3)
    os.environ["AWS_ENDPOINT_URL"] = address
    client = boto3.client("s3", endpoint_url=address)
    client.create_bucket(Bucket="models")
    for path in source.iterdir():
        client.upload_file(str(path), "models", f"source/{path.name}")
    alone = s3_seconds(client, {f"source/{path.name}": path.stat().st_size for path in source.glob("*.safetensors")})
    results["s3"] = run("s3://models/source", str(folder / "s3"))
    assert same(folder / "disk", folder / "s3")
    forget(source)
    results["to_s3"] = run(str(source), "s3://models/out")
    for path in (folder / "disk").glob("*.safetensors"):
        assert client.get_object(Bucket="models", Key=f"out/{path.name}")["Body"].read() == path.read_bytes()
    process.kill()
    return alone


if __name__ == "__main__":
    main()
