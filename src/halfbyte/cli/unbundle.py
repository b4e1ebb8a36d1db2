"""`halfbyte unbundle`"""

from pathlib import Path
from typing import Annotated

import typer

from halfbyte.cli.output import Json, command, print_json, say, shown_progress, size_text


@command
def unbundle(
    source: Annotated[str, typer.Argument(help="Bundle: a folder or https:// address.")],
    output: Annotated[
        Path | None, typer.Argument(metavar="[DST]", help="Folder to fill; the same one resumes.")
    ] = None,
    hashes: Annotated[
        Path | None, typer.Option(help="JSON of path to SHA-256, instead of the bundle's own bundle.json.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check every file; without DST, do nothing else.")] = False,
    json_output: Json = False,
) -> None:
    """Put down a bundle, every file checked by its SHA-256 before it is in its place.

    Example: halfbyte unbundle /media/disk/glm ./glm --verify
    """
    from halfbyte.deploy.bundle import unbundle as run

    with shown_progress() as progress:
        result = run(source, output, hashes=hashes, verify=verify, progress=progress)
    if json_output:
        print_json({"ok": True, **result.as_json()})
    elif output is None:
        say(f"ok: {result.files} files are as the list says")
    else:
        say(f"wrote {result.folder}: {result.files} files, {result.copied} copied ({size_text(result.bytes)})")
