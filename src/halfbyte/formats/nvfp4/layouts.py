"""The two layouts of an NVFP4 linear, part by part."""

from collections.abc import Mapping

from halfbyte.formats.nvfp4 import compressed, stored
from halfbyte.formats.storage import SCALE, WEIGHT, StorageFormat

TO_COMPRESSED = {
    WEIGHT: compressed.PACKED,
    SCALE: SCALE,
    stored.SCALE_2: compressed.GLOBAL_SCALE,
    stored.INPUT_SCALE: compressed.INPUT_GLOBAL_SCALE,
}
"""ModelOpt's part -> compressed-tensors'. The last two are inverse to each other."""
TO_MODELOPT = {theirs: ours for ours, theirs in TO_COMPRESSED.items()}
INVERSE = frozenset({stored.SCALE_2, stored.INPUT_SCALE, compressed.GLOBAL_SCALE, compressed.INPUT_GLOBAL_SCALE})
SCALAR_SHAPES: Mapping[str, tuple[int, ...]] = {
    stored.SCALE_2: (),
    stored.INPUT_SCALE: (),
    compressed.GLOBAL_SCALE: (1,),
    compressed.INPUT_GLOBAL_SCALE: (1,),
}
"""As each layout's own writer shapes them."""


def is_nvfp4(form: StorageFormat) -> bool:
    """In whichever layout."""
    return form.name in (stored.FORMAT.name, compressed.FORMAT.name)
