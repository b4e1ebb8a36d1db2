"""Rows from what `--data` names: JSONL, Parquet and text files, `hf:` data sets. A row is a mapping and its number."""

import io
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any

from halfbyte.disk import open_regular, read_stream
from halfbyte.errors import DataError, UnsupportedError

JSONL = (".jsonl", ".ndjson", ".json")
SHUFFLE_ROWS = 4096
"""Rows that a data set read over the network is shuffled within."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. source: file or data set. number: line of a JSONL file, row of a table, from 1. labels: given by us."""

    source: str
    number: int
    values: dict[str, Any]

    @property
    def where(self) -> str:
        return f"{self.source}:{self.number}"


def rows_of(name: str, seed: int) -> Iterator[Row]:
    """Rows of one `--data` argument. Raises DataError, or UnsupportedError where a package is missing."""
    if name.startswith("hf:"):
        return _data_set(name, seed)
    path = Path(name)
    if os.path.isdir(path):  # os.path says no where pathlib raises, for names that no file can have
        raise DataError(f"{path}: is a folder", hint="give files, or hf:NAME for a data set")
    if not os.path.exists(path):
        raise DataError(
            f"{name}: no such file", hint="give JSONL, Parquet or text files, hf:NAME, or the mix nemotron-7"
        )
    if path.suffix in JSONL or (not path.suffix and _looks_like_json_lines(path)):
        return _json_lines(path)
    if path.suffix == ".parquet":
        return _parquet(path)
    return _text(path)


def _looks_like_json_lines(path: Path) -> bool:
    """Of a pipe, whose name (`/dev/fd/63`) says nothing: whether it begins with an object."""
    return stat.S_ISFIFO(os.stat(path).st_mode) and read_stream(path, DataError)[:1] == b"{"


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(io.BytesIO(read_stream(path, DataError)), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not valid JSON: {str(error)[:120]}") from None
        if not isinstance(values, dict):
            raise DataError(f"{path}:{number}: {type(values).__name__}, wanted a JSON object on every line")
        yield Row(str(path), number, values)


def _text(path: Path) -> Iterator[Row]:
    try:
        text = read_stream(path, DataError).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text at byte {error.start}", hint="text files are one document each"
        ) from None
    yield Row(str(path), 1, {"text": text})


def _parquet(path: Path) -> Iterator[Row]:
    parquet: Any = _needed("pyarrow.parquet", "pyarrow", f"{path}: Parquet")
    os.close(open_regular(path, DataError))
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=256):
            for values in batch.to_pylist():
                number += 1
                yield Row(str(path), number, values)
    except DataError:
        raise
    except Exception as error:  # pyarrow has its own tree of errors
        raise DataError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())[:200]}") from None


def _data_set(name: str, seed: int) -> Iterator[Row]:
    """`hf:NAME` or `hf:NAME:SPLIT`, streamed and shuffled; all splits in turn where none is named."""
    datasets: Any = _needed("datasets", "datasets", name)
    repository, _, split = name.removeprefix("hf:").partition(":")
    if not repository:
        raise DataError(f"{name!r}: names no data set", hint="write hf:OWNER/NAME or hf:OWNER/NAME:SPLIT")
    number = 0
    try:
        loaded = datasets.load_dataset(repository, split=split or None, streaming=True)
        splits = [loaded] if split else list(loaded.values())
        for together in zip_longest(*(part.shuffle(seed=seed, buffer_size=SHUFFLE_ROWS) for part in splits)):
            for values in together:
                if values is not None:
                    number += 1
                    yield Row(name, number, {key: value for key, value in values.items() if value is not None})
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except Exception as error:  # the network, the hub and every file format behind it
        raise DataError(
            f"{name}: cannot be loaded: {' '.join(str(error).split())[:200]}",
            hint="data sets need the network, and some an accepted licence; or download rows and give the file",
        ) from None


def _needed(module: str, package: str, what: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UnsupportedError(
            f"{what} needs the package {package}, which is not installed", hint=f"pip install {package}"
        ) from None
