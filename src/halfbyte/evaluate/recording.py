"""What a verdict rests on, kept: every answer's record beside the logs, the verdict in the candidate's evidence.

`evidence.json` in the work folder: conditions, versions, and for each item what each run of each arm came to, with its
seed and the requests it took. Prompts and answers in full stand in inspect's logs beside it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from halfbyte import __version__
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import write_whole
from halfbyte.compare.recorded import describes, shard_hashes
from halfbyte.disk import is_missing, read_regular
from halfbyte.errors import CheckpointError, DataError
from halfbyte.evaluate.samples import Arm, Sample
from halfbyte.evidence.comparison import Evaluated
from halfbyte.evidence.dossier import Dossier, identity
from halfbyte.evidence.names import DOSSIER
from halfbyte.evidence.record import json_bytes
from halfbyte.progress import Progress
from halfbyte.quantize.card import model_card
from halfbyte.quantize.side_files import CARD, SOURCE_CARD

RECORDS = "evidence.json"
_PACKAGES = ("halfbyte", "inspect_ai", "inspect_evals", "openai", "xllamacpp")
_CARD_LIMIT_BYTES = 10_000_000


@dataclass(frozen=True)
class Judged:
    """What is to be kept. suite: name of the whole. document: as `--json` prints it. slices, max_context: covered."""

    suite: str
    document: Mapping[str, Any]
    slices: tuple[str, ...] = ()
    max_context: int = 0


def write_records(folder: Path, judged: Judged, arms: Mapping[str, Arm]) -> str:
    """Write `evidence.json`; its SHA-256. Raises OutputError."""
    items = {
        name: [
            {"id": item, **found}
            for item, found in _by_item({arm: one.suites.get(name, []) for arm, one in arms.items()})
        ]
        for name in next(iter(arms.values())).suites
    }
    content = json_bytes({**judged.document, "versions": _versions(), "items": items}, indent=1)
    write_whole(folder / RECORDS, content)
    return hashlib.sha256(content).hexdigest()


def _by_item(arms: Mapping[str, Sequence[Sample]]) -> Iterator[tuple[str, dict[str, list[dict[str, Any]]]]]:
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for arm, samples in arms.items():
        for sample in samples:
            found.setdefault(sample.item, {}).setdefault(arm, []).append(_row(sample))
    yield from sorted(found.items())


def _row(sample: Sample) -> dict[str, Any]:
    row = sample._asdict()
    del row["item"]
    return {key: value for key, value in row.items() if value is not None}


def _versions() -> dict[str, str]:
    found = {"halfbyte": __version__}
    for name in _PACKAGES[1:]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def record(folder: Path, judged: Judged, records_sha256: str | None, progress: Progress) -> None:
    """Put the verdict into a checkpoint's evidence and model card. Raises CheckpointError, OutputError, DataError."""
    path = folder / DOSSIER
    if is_missing(path):
        raise DataError(f"{folder}: has no {DOSSIER} to record the verdict in", hint="halfbyte quantize writes it")
    with Checkpoint.open(folder) as checkpoint:
        progress.start("hashing", sum(shard.bytes for shard in checkpoint.shards.values()))
        hashes = shard_hashes(checkpoint, progress.advance)
    if not describes(folder, hashes):
        raise CheckpointError(f"{path}: is about other shards than those that lie here", hint="halfbyte verify")
    before = Dossier.read(path)
    rows = list(_rows(judged, identity(hashes), records_sha256))
    kept = [row for row in before.evaluate if not any(row.repeats(new) for new in rows)]
    after = before.model_copy(update={"evaluate": [*kept, *rows]})
    after.model_fields_set.add("evaluate")
    _write_card(folder, before, after, progress)
    after.write(path)
    progress.note(f"recorded in {path}")


def _rows(judged: Judged, candidate: str, records_sha256: str | None) -> Iterator[Evaluated]:
    """One for the whole, one for each of several suites."""
    document = judged.document
    common: dict[str, Any] = {
        "candidate": candidate,
        "halfbyte": __version__,
        "conditions": document.get("conditions"),
        "baseline": (document.get("conditions") or {}).get("baseline"),
        "records_sha256": records_sha256,
    }
    suites = document["suites"]
    pooled = document["pooled"]
    yield Evaluated(
        suite=judged.suite,
        verdict=document["verdict"],
        margin=suites[0]["margin"],
        n=sum(suite["n"] for suite in suites),
        difference=pooled["difference"],
        interval=pooled["interval"],
        slices=list(judged.slices),
        max_context=judged.max_context,
        **common,
    )
    for suite in suites if len(suites) > 1 or suites[0]["name"] != judged.suite else ():
        yield Evaluated(
            suite=suite["name"],
            verdict=suite["verdict"],
            margin=suite["margin"],
            n=suite["n"],
            difference=suite["difference"],
            interval=suite["interval"],
            slices=list(judged.slices),
            max_context=judged.max_context,
            **common,
        )


def _write_card(folder: Path, before: Dossier, after: Dossier, progress: Progress) -> None:
    """The card as evidence makes it; one that somebody wrote is left alone."""
    path, source = folder / CARD, folder / SOURCE_CARD
    if is_missing(path):
        return
    own = None if is_missing(source) else read_regular(source, _CARD_LIMIT_BYTES).decode("utf-8", "replace")
    if read_regular(path, _CARD_LIMIT_BYTES).decode("utf-8", "replace") != model_card(before, own):
        progress.note(f"{path}: was edited by somebody, left as it is")
        return
    write_whole(path, model_card(after, own).encode())
