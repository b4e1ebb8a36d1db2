"""Request traces: read from CSV or Parquet, or generated to look like reasoning traffic.

A trace has one row a request: `arrival` (seconds from any origin), `input` and `output` (tokens), `tenant` (a name).
"""

import csv
import io
import math
import os
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halfbyte.disk import open_regular, read_stream
from halfbyte.errors import UnsupportedError, UsageError

COLUMNS = ("arrival", "input", "output", "tenant")
GENERATED = re.compile(r"reasoning:(\d+)@(\d+(?:\.\d+)?)")
MOST_TOKENS = 1 << 24


@dataclass(frozen=True, slots=True)
class Request:
    """arrival in seconds; input and output in tokens."""

    arrival: float
    input: int
    output: int
    tenant: str


def read_trace(source: str | Path, seed: int = 0) -> list[Request]:
    """Requests by arrival. `reasoning:N@R` generates N requests at R a second.

    Raises UsageError naming file and row.
    """
    generated = GENERATED.fullmatch(str(source))
    if generated:
        return reasoning_traffic(int(generated.group(1)), float(generated.group(2)), seed)
    path = Path(source)
    if not os.path.lexists(path):
        hint = "give a CSV or Parquet file, or reasoning:REQUESTS@PER_SECOND for generated traffic"
        raise UsageError(f"{path}: no such trace", hint=hint)
    rows = _parquet_rows(path) if path.suffix.lower() in (".parquet", ".pq") else _csv_rows(path)
    found = [_request(row, f"{path}: row {number}") for number, row in enumerate(rows, 1)]
    if not found:
        raise UsageError(f"{path}: holds no request")
    return sorted(found, key=lambda request: request.arrival)


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    text = read_stream(path, UsageError)
    try:
        with io.StringIO(text.decode("utf-8"), newline="") as file:
            reader = csv.DictReader(file)
            _check_columns(reader.fieldnames or (), path)
            return list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as CSV: {error}") from None


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise UnsupportedError(
            f"{path}: reading Parquet needs pyarrow, which is not installed", hint="pip install pyarrow, or give CSV"
        ) from None
    os.close(open_regular(path, UsageError))
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as Parquet: {str(error)[:200]}") from None
    _check_columns(table.column_names, path)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _check_columns(names: Any, path: Path) -> None:
    missing = [name for name in COLUMNS[:3] if name not in names]
    if missing:
        raise UsageError(f"{path}: has no column {', '.join(missing)}", hint=f"wanted: {', '.join(COLUMNS)}")


def _request(row: dict[str, Any], where: str) -> Request:
    try:
        arrival, tokens = float(row["arrival"]), [int(row["input"]), int(row["output"])]
    except (TypeError, ValueError):
        raise UsageError(f"{where}: arrival, input and output must be numbers") from None
    if not math.isfinite(arrival) or not all(1 <= count <= MOST_TOKENS for count in tokens):
        raise UsageError(f"{where}: arrival {arrival:g}, input {tokens[0]}, output {tokens[1]} are out of range")
    return Request(arrival, tokens[0], tokens[1], str(row.get("tenant") or "default"))


def reasoning_traffic(requests: int, per_second: float, seed: int = 0, tenants: int = 4) -> list[Request]:
    """Generated traffic of a reasoning service. The same seed gives the same trace.

    Arrivals: Poisson with a daily wave of +-50 % and bursts (one minute in twenty at three times the rate), scaled to
    the mean asked for. Lengths: log-normal. 55 % chat (median 1,500 in, 600 out), 30 % reasoning (2,000 in, 8,000
    out, long tail past 37,000), 15 % agents with long contexts (30,000 in, 900 out). Tenants share 1, 1/2, 1/3, ...
    These shapes are assumptions; only the existence of 37,000-token answers is posted. Use your own trace to decide.
    """
    if not 1 <= requests <= 50_000_000 or not 0 < per_second <= 1e6 or tenants < 1:
        raise UsageError(f"cannot generate {requests} requests at {per_second:g} a second")
    draw = random.Random(seed)
    kinds = ((0.55, 1_500, 1.0, 600, 0.8), (0.30, 2_000, 0.9, 8_000, 0.9), (0.15, 30_000, 0.8, 900, 0.9))
    weights = [1 / (number + 1) for number in range(tenants)]
    names = [f"tenant-{number + 1}" for number in range(tenants)]
    mean_rate = 0.95 + 0.05 * 3
    clock, found = 0.0, []
    for _ in range(requests):
        wave = 1 + 0.5 * math.sin(2 * math.pi * clock / 86_400)
        burst = 3.0 if int(clock / 60) % 20 == 19 else 1.0
        clock += draw.expovariate(per_second * wave * burst / mean_rate)
        pick = draw.random()
        kind = kinds[0] if pick < 0.55 else kinds[1] if pick < 0.85 else kinds[2]
        _, in_median, in_sigma, out_median, out_sigma = kind
        asked = min(max(int(in_median * math.exp(in_sigma * draw.gauss(0, 1))), 16), 200_000)
        answered = min(max(int(out_median * math.exp(out_sigma * draw.gauss(0, 1))), 1), 65_536)
        found.append(Request(clock, asked, answered, draw.choices(names, weights)[0]))
    return found


def write_csv(requests: list[Request], path: Path) -> None:
    """Write a trace that `read_trace` reads back."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((f"{r.arrival:.6f}", r.input, r.output, r.tenant) for r in requests)
