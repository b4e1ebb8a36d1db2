"""`halfbyte inspect`"""

from typing import Annotated

import typer

from halfbyte.cli.output import Json, command, print_json, print_table, role_text, say, size_text


@command
def inspect(
    path: Annotated[str, typer.Argument(help="Checkpoint: folder, hub name (owner/name[@revision]) or URL.")],
    json_output: Json = False,
) -> None:
    """Show what a checkpoint holds, by role and format: parameters, bytes, bits per weight. Reads headers only.

    Example: halfbyte inspect ./glm-nvfp4
    """
    from halfbyte.checkpoint.inspect import inspect as run

    found = run(path)
    if json_output:
        print_json(found.as_json())
        return
    rows = [
        [
            role_text(group),
            group["format"],
            f"{group['tensors']:,}",
            f"{group['parameters']:,}",
            size_text(group["bytes"]),
            f"{8 * group['bytes'] / group['parameters']:.3f}" if group["parameters"] else "-",
        ]
        for group in found.groups
    ]
    footer = [
        "total",
        "",
        f"{found.tensors:,}",
        f"{found.parameters:,}",
        size_text(found.bytes),
        f"{found.bits_per_weight:.3f}",
    ]
    columns = ["role", "format", "tensors", "parameters", "size", "bits/weight"]
    print_table(f"{path} ({found.model_type})", columns, rows, footer)
    if found.buffers:
        say(f"not counted: {len(found.buffers):,} buffers, which are no weights, first {found.buffers[0]}")
