"""Everything beside the weights: side files, config, index, evidence, card."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.disk import read_regular
from halfbyte.evidence.dossier import File, RoundedOnData
from halfbyte.evidence.names import DOSSIER
from halfbyte.quantize.card import model_card
from halfbyte.quantize.dossier import Results, dossier
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.journal import Journal
from halfbyte.quantize.prepare import Prepared
from halfbyte.quantize.side_files import CARD, SOURCE_CARD, metadata_files
from halfbyte.quantize.staging import BESIDE, write_staged
from halfbyte.text import line


def write_metadata(
    prepared: Prepared,
    journal: Journal,
    copied: Mapping[str, File],
    shards: list[File],
    scales: InputScales | None,
    results: Results,
    rounded_on_data: RoundedOnData | None,
) -> list[str]:
    """Stage everything beside the weights but the side files, which were `copied` before.

    Returns the names in the order in which they are to appear: config last.
    """
    source, job, side = prepared.source, prepared.job, prepared.side.files
    sources = [
        File(file=name, bytes=source.shards[name].bytes, sha256=digest)
        for name, digest in sorted(journal.sources.items())
    ]
    read = [
        File(file=_name(source.folder, side[name]), bytes=file.bytes, sha256=file.sha256)
        for name, file in copied.items()
    ]
    read += [_file(path.name, read_regular(path, JSON_LIMIT_BYTES)) for path in _source_metadata(source.folder)]
    sources += sorted(read, key=lambda file: file.file)
    metadata = metadata_files(source.config, job)
    written = shards + sorted(
        [*copied.values(), *(_file(name, data) for name, data in metadata.items())], key=lambda file: file.file
    )
    document = dossier(
        job,
        line(source.folder.resolve().name),
        sources,
        written,
        prepared.options.rounding,
        scales,
        results,
        rounded_on_data,
    )
    extra = {
        CARD: model_card(document, _source_card(journal.folder, copied)).encode(),
        DOSSIER: document.to_bytes(),
    }
    for name, data in (metadata | extra).items():
        write_staged(journal.folder, name, data)
    return [CARD, DOSSIER, *metadata]


def _source_card(staging: Path, copied: Mapping[str, File]) -> str | None:
    if SOURCE_CARD not in copied:
        return None
    return read_regular(staging / BESIDE / SOURCE_CARD, JSON_LIMIT_BYTES).decode("utf-8", "replace")


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _file(name: str, content: bytes) -> File:
    return File(file=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _source_metadata(folder: Path) -> list[Path]:
    return [path for name in ("config.json", INDEX_NAME) if (path := folder / name).exists()]
