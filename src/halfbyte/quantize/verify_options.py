"""What `verify` can be asked for; every default stands here alone."""

from dataclasses import dataclass

from halfbyte.errors import UsageError, said


@dataclass(frozen=True)
class VerifyOptions:
    """workers: threads, by default one per processor. follow_links: see `Checkpoint.open`. tokenizer_pre: that the GGUF
    was exported with, where llama.cpp's name of the tokenizer's splitting rule is not recognised.

    Raises UsageError for what cannot be.
    """

    workers: int | None = None
    follow_links: bool = False
    tokenizer_pre: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(said("{workers} {value}: wanted at least 1", value=self.workers))
