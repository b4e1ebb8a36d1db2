"""Formats whose damage can be shown beside NVFP4's, and why a recipe cannot have them."""

from collections.abc import Sequence

from halfbyte.engines.mixture import WHY_NOTHING_BESIDE
from halfbyte.errors import UsageError, said
from halfbyte.formats import fp8_block, mxfp4
from halfbyte.formats.storage import StorageFormat

FORMS: dict[str, StorageFormat] = {form.name: form for form in (fp8_block.FORMAT, mxfp4.FORMAT)}


def formats_beside(names: Sequence[str]) -> dict[str, StorageFormat]:
    """Raises UsageError for a name that is none of them."""
    for name in names:
        if name not in FORMS:
            raise UsageError(said("{also} {name!r}: wanted {known}", name=name[:40], known=" or ".join(FORMS)))
    return {name: FORMS[name] for name in FORMS if name in names}


def why_not(names: Sequence[str]) -> dict[str, str]:
    return dict.fromkeys(formats_beside(names), WHY_NOTHING_BESIDE)
