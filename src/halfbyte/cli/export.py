"""`halfbyte export`"""

from pathlib import Path
from typing import Annotated

import typer

from halfbyte.cli.output import (
    FollowLinks,
    Json,
    command,
    options_from,
    parse_size,
    print_json,
    say,
    shown_progress,
    size_text,
)
from halfbyte.errors import UnsupportedError


@command
def export(
    path: Annotated[Path, typer.Argument(help="ModelOpt NVFP4 or BF16 checkpoint folder.")],
    out: Annotated[Path, typer.Argument(help="GGUF file to write, named *.gguf.")],
    max_shard_size: Annotated[
        str | None, typer.Option(help="Split into OUT-00001-of-000NN.gguf of at most this size, e.g. 50GB.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT once the new one is done.")] = False,
    tokenizer_pre: Annotated[
        str | None, typer.Option(help="llama.cpp's name of the tokenizer's splitting rule, where it is not recognised.")
    ] = None,
    type: Annotated[
        str | None, typer.Option(help="Round matrices to q8_0, q4_0 or bf16: lossy, for what has no NVFP4 graph.")
    ] = None,
    follow_links: FollowLinks = False,
    json_output: Json = False,
) -> None:
    """Write a checkpoint as GGUF for llama.cpp, losslessly: NVFP4 codes and scales are rearranged, never requantized.

    Streams in constant memory; after a kill the same command resumes. Check with: halfbyte verify PATH OUT.gguf
    In some families llama.cpp's graph applies no NVFP4 scale to experts (docs/families.md) and would compute nonsense:
    their NVFP4 checkpoints are refused; --type q8_0, q4_0 or bf16 writes a lossy one that runs. Of a text model beside
    towers the text model is written; gpt-oss's MXFP4 stays as it is.
    Example: halfbyte export ./glm-nvfp4 glm.gguf
    """
    try:
        from halfbyte.export import LOSSY_KEY
        from halfbyte.export import export as run
        from halfbyte.export.options import ExportOptions
    except ModuleNotFoundError as error:
        if error.name != "gguf":
            raise
        raise UnsupportedError("export needs the gguf package", hint="pip install 'halfbyte[local]'") from None

    bytes = parse_size(max_shard_size) if max_shard_size is not None else None
    options = options_from(ExportOptions, locals(), max_shard_size=bytes)
    with shown_progress() as progress:
        result = run(path, out, options, progress=progress)
    if json_output:
        print_json(result.as_json())
        return
    if result.dropped:
        say(
            f"left out: {len(result.dropped):,} tensors that llama.cpp's {result.architecture} has no use for, first "
            f"{result.dropped[0]}"
        )
    if result.zero_scale_blocks:
        say(f"note: {result.zero_scale_blocks:,} blocks have a scale of 0 over codes that are not; they decode to 0")
    if result.lossy is not None:
        say(f"lossy: matrices are rounded to {result.lossy}, as {LOSSY_KEY} in the file says")
    more = f" and {len(result.files) - 1} more" if len(result.files) > 1 else ""
    resumed = f", {size_text(result.resumed_bytes)} resumed" if result.resumed_bytes else ""
    say(
        f"wrote {result.files[0]}{more}: {size_text(result.bytes)}, {result.architecture}, {result.tensors:,} tensors "
        f"({result.nvfp4_tensors:,} NVFP4), {result.seconds:.1f} s, "
        f"{(result.bytes - result.resumed_bytes) / 1e9 / max(result.seconds, 1e-9):.2f} GB/s{resumed}"
    )
