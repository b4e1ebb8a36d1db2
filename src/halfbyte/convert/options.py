"""What `convert` can be asked for; every default stands here alone."""

from dataclasses import dataclass
from typing import Literal, get_args

from halfbyte.errors import UsageError, said

Layout = Literal["modelopt", "compressed-tensors"]


@dataclass(frozen=True)
class ConvertOptions:
    """layout: to write. overwrite: replace a checkpoint in the folder; the old one stays until the new one is complete.
    follow_links: see `Checkpoint.open`.

    Raises UsageError for what cannot be.
    """

    layout: Layout
    overwrite: bool = False
    follow_links: bool = False

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            known = " or ".join(get_args(Layout))
            raise UsageError(said("{layout} {value}: wanted {known}", value=self.layout, known=known))
