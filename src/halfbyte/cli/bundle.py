"""`halfbyte bundle`"""

from pathlib import Path
from typing import Annotated

import typer

from halfbyte.cli.output import Json, command, print_json, say, shown_progress, size_text


@command
def bundle(
    target: Annotated[Path, typer.Argument(help="Checkpoint folder, with its gate.json.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to fill; the same one resumes.")],
    manifests: Annotated[Path | None, typer.Option(help="Folder that halfbyte deploy wrote.")] = None,
    no_gate: Annotated[bool, typer.Option("--no-gate", help="Ask for no decision of the gate.")] = False,
    json_output: Json = False,
) -> None:
    """Put checkpoint, decision, manifests, image list and hashes into one folder, to carry across an air gap.

    Example: halfbyte bundle ./glm-nvfp4 --manifests k8s -o /media/disk/glm
    """
    from halfbyte.deploy.bundle import bundle as run

    with shown_progress() as progress:
        result = run(target, output, manifests=manifests, no_gate=no_gate, progress=progress)
    if json_output:
        print_json(result.as_json())
        return
    say(f"wrote {result.folder}: {result.files} files, {result.copied} copied ({size_text(result.bytes)})")
    for image in result.images:
        say(f"bring the image {image}")
