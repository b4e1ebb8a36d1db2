"""Everything beside the weights: side files, config, index, evidence, card."""

import hashlib
from pathlib import Path

from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.evidence.dossier import File, RoundedOnData
from halfbyte.evidence.names import DOSSIER
from halfbyte.quantize.card import model_card
from halfbyte.quantize.dossier import Results, dossier
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.journal import Journal
from halfbyte.quantize.prepare import Prepared
from halfbyte.quantize.side_files import CARD, SOURCE_CARD, carried, metadata_files
from halfbyte.quantize.staging import write_staged


def write_metadata(
    prepared: Prepared,
    journal: Journal,
    shards: list[File],
    scales: InputScales | None,
    results: Results,
    rounded_on_data: RoundedOnData | None,
) -> list[str]:
    """Stage everything beside the weights. Returns the names in the order in which they are to appear: config last."""
    source, job = prepared.source, prepared.job
    side = carried(source.folder)
    contents = {name: path.read_bytes() for name, path in side.items()}
    sources = [
        File(file=name, bytes=source.shards[name].bytes, sha256=digest)
        for name, digest in sorted(journal.sources.items())
    ]
    for path in sorted([*side.values(), *_source_metadata(source.folder)]):
        sources.append(_file(path.name, path.read_bytes()))
    metadata = metadata_files(source.config, job)
    staged = contents | metadata
    written = shards + [_file(name, data) for name, data in sorted(staged.items())]
    document = dossier(
        job,
        source.folder.resolve().name,
        sources,
        written,
        prepared.options.rounding,
        scales,
        results,
        rounded_on_data,
    )
    card = contents.get(SOURCE_CARD)
    extra = {
        CARD: model_card(document, card.decode("utf-8", "replace") if card else None).encode(),
        DOSSIER: document.to_bytes(),
    }
    for name, data in (staged | extra).items():
        write_staged(journal.folder, name, data)
    return [*contents, CARD, DOSSIER, *metadata]


def _file(name: str, content: bytes) -> File:
    return File(file=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _source_metadata(folder: Path) -> list[Path]:
    return [path for name in ("config.json", INDEX_NAME) if (path := folder / name).exists()]
