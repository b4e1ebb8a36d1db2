"""`halfbyte convert`"""

from pathlib import Path
from typing import Annotated

import typer

from halfbyte.cli.output import FollowLinks, Json, command, options_from, print_json, say, shown_progress, size_text
from halfbyte.convert.options import ConvertOptions


@command
def convert(
    src: Annotated[Path, typer.Argument(help="NVFP4 checkpoint folder.")],
    dst: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.")],
    layout: Annotated[str, typer.Option(help="modelopt or compressed-tensors: the layout to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the checkpoint in DST once ours is done.")
    ] = ConvertOptions.overwrite,
    follow_links: FollowLinks = ConvertOptions.follow_links,
    json_output: Json = False,
) -> None:
    """Change the layout of an NVFP4 checkpoint, ModelOpt's or compressed-tensors', and not one number.

    Codes and block scales are copied; second scales are inverted, and come back bit by bit.
    Example: halfbyte convert ./glm-llm-compressor ./glm-modelopt --layout modelopt
    """
    from halfbyte.api import convert as run

    options = options_from(ConvertOptions, locals())
    with shown_progress() as progress:
        result = run(src, dst, options, progress=progress)
    if json_output:
        print_json(result.as_json())
        return
    for warning in result.warnings:
        say(f"note: {warning}")
    kept = f", {result.kept_scales:,} second scales kept for the way back" if result.kept_scales else ""
    say(
        f"{result.output}: {result.linears:,} linears from {result.came_from} to {result.layout}{kept}, "
        f"{size_text(result.bytes_out)} in {result.shards} shard(s), {result.seconds:.1f} s"
    )
