"""`halfbyte.json` of a converted checkpoint: what its source's said, the files as they are now, and the conversion."""

import hashlib
from collections.abc import Mapping

from halfbyte import __version__
from halfbyte.checkpoint.inventory import alike, grouped
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.convert.planning import Plan
from halfbyte.evidence.conversion import Conversion, OriginalScale
from halfbyte.evidence.dossier import SCHEMA, Dossier, File, RecipeRecord, RoleRow, SourceRecord
from halfbyte.formats.catalogue import NVFP4, NVFP4_COMPRESSED
from halfbyte.text import line

FOREIGN = "converted"
"""Recipe and rounding of a checkpoint that another tool made."""


def evidence(
    source: Checkpoint,
    plan: Plan,
    before: Dossier | None,
    kept: Mapping[str, OriginalScale],
    shards: list[File],
    copied: Mapping[str, File],
    metadata: Mapping[str, bytes],
) -> Dossier:
    """before: the source's own evidence. kept: scales by their names in the output. copied: side files as staged."""
    written = [
        File(file=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in metadata.items()
    ]
    changed = {
        "shards": shards,
        "files": sorted([*copied.values(), *written], key=lambda file: file.file),
        "converted": Conversion(came_from=plan.came_from, became=plan.layout, original_scales=dict(kept)),
    }
    became = _FORMAT[plan.layout]
    if before is not None:
        rows = [row.model_copy(update={"format": became}) if row.format in _BOTH else row for row in before.roles]
        return before.model_copy(update=changed | {"roles": rows})
    return _foreign(source, plan, became).model_copy(update=changed)


_BOTH = (NVFP4, NVFP4_COMPRESSED)
_FORMAT = {"modelopt": NVFP4, "compressed-tensors": NVFP4_COMPRESSED}


def _foreign(source: Checkpoint, plan: Plan, became: str) -> Dossier:
    """Of a checkpoint without evidence: what it holds, and that nothing is known of its making."""
    rows = [
        RoleRow(
            role=group["role"],
            mtp=group["mtp"],
            format=became if group["format"] in _BOTH else group["format"],
            tensors=group["tensors"],
            parameters=group["parameters"],
            bytes_before=group["bytes"],
            bytes_after=group["bytes"],
        )
        for group in grouped(alike(source.tensors, plan.roles))
    ]
    recipe = RecipeRecord(
        version=1,
        name=FOREIGN,
        description=f"Quantized by another tool; its layout was {plan.came_from}.",
        algorithm=plan.algorithm,
        roles={},
        layers={},
        mtp="keep",
    )
    hashes = [File(file=name, bytes=shard.bytes, sha256=shard.sha256()) for name, shard in source.shards.items()]
    return Dossier(
        schema=SCHEMA,
        halfbyte=__version__,
        versions={},
        model_type=plan.roles.family.model_type,
        source=SourceRecord(name=line(source.folder.resolve().name), format=_FORMAT[plan.came_from], files=hashes),
        recipe=recipe,
        rounding=FOREIGN,
        input_scale=None,
        warnings=[],
        roles=rows,
        shards=[],
        files=[],
        tensors={},
    )
