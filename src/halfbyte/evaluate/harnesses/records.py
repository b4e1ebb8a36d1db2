"""What the readers of all harnesses share: a run of one suite, strict files, scores from 0 to 1."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halfbyte.disk import open_regular, read_regular
from halfbyte.errors import DataError
from halfbyte.evaluate.samples import Sample

FILE_LIMIT_BYTES = 1_000_000_000
LINE_LIMIT_BYTES = 100_000_000
"""An answer of a million tokens with its conversation."""
SAMPLING = {
    *("temperature", "top_p", "top_k", "min_p", "do_sample", "repetition_penalty"),
    *("frequency_penalty", "presence_penalty", "n", "num_choices", "best_of"),
    *("max_tokens", "max_gen_toks", "max_new_tokens", "stop", "stop_seqs", "until"),
    *("reasoning_effort", "reasoning_tokens", "reasoning_mode", "chat_template_kwargs", "extra_body"),
    *("system_prompt", "system_message"),
}
"""Settings that change what is asked or how it is answered. Seeds, timeouts and concurrency do not."""


@dataclass(frozen=True)
class Run:
    """One suite as one model answered it. source: the file or folder, for errors. conditions: equal in both arms."""

    suite: str
    model: str
    source: Path
    conditions: Mapping[str, Any]
    samples: list[Sample]


def sampling(settings: object) -> dict[str, Any]:
    """The settings that must be equal, of a harness's own."""
    if not isinstance(settings, dict):
        return {}
    return {key: settings[key] for key in sorted(SAMPLING & settings.keys()) if settings[key] is not None}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object a file holds. Raises DataError."""
    return _object(read_regular(path, FILE_LIMIT_BYTES, DataError), str(path))


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where, and the JSON object of each line. Raises DataError naming the line."""
    with open(open_regular(path, DataError), "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT_BYTES + 1), b""), 1):
            where = f"{path}:{number}"
            if len(line) > LINE_LIMIT_BYTES:
                raise DataError(f"{where}: a line of over {LINE_LIMIT_BYTES} bytes is no answer")
            if line.strip():
                yield where, _object(line, where)


def _object(content: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {str(error)[:120]}") from None
    if not isinstance(document, dict):
        raise DataError(f"{where}: not a JSON object")
    return document


def wanted(record: Mapping[str, Any], key: str, where: str) -> Any:
    """A value that must be there. Raises DataError."""
    if record.get(key) is None:
        raise DataError(f"{where}: has no {key}")
    return record[key]


def inner(record: Mapping[str, Any], *keys: str) -> Any:
    """A value some objects deep; None where any of them is missing or no object."""
    found: Any = record
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def score_of(value: object, where: str) -> float | None:
    """0 to 1; None for a score that is none (null, NaN). Raises DataError for other numbers and things."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (bool, int, float)) and 0 <= value <= 1:
        return float(value)
    raise DataError(f"{where}: a score of {str(value)[:40]}: wanted 0 to 1")


def scored(item: str, value: object, where: str, **more: Any) -> Sample:
    """A sample with its score, or one that is unscorable."""
    score = score_of(value, where)
    return Sample(item, "unscorable" if score is None else "scored", score, **more)


def cluster_of(metadata: object, field: str | None, where: str) -> str | None:
    """What `field` of an item's metadata says; None if none is asked for. Raises DataError where it is missing."""
    if field is None:
        return None
    if not isinstance(metadata, Mapping) or metadata.get(field) is None:
        keys = ", ".join(sorted(map(str, metadata))[:12]) if isinstance(metadata, Mapping) and metadata else "nothing"
        raise DataError(f"{where}: has no {field!r} to cluster by", hint=f"its metadata holds {keys[:200]}")
    return str(metadata[field])


def check_once(keys: Iterable[object], source: Path, what: str) -> None:
    """Raise DataError for a key that stands twice."""
    seen: set[object] = set()
    for key in keys:
        if key in seen:
            raise DataError(f"{source}: {what} {key} stands twice", hint="leave one run's answers in the folder")
        seen.add(key)
