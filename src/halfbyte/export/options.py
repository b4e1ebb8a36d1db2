"""What `export` can be asked for; every default stands here alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ExportOptions:
    """max_shard_size: bytes of the largest file, None for a single one. overwrite: replace what is there once the new
    one is done. tokenizer_pre: llama.cpp's name of the tokenizer's splitting rule, where it is not recognised. type:
    `q8_0`, `q4_0` or `bf16` to round the matrices to, for what llama.cpp cannot run in NVFP4; None loses not a bit.
    follow_links: see `Checkpoint.open`.
    """

    max_shard_size: int | None = None
    overwrite: bool = False
    tokenizer_pre: str | None = None
    type: str | None = None
    follow_links: bool = False
