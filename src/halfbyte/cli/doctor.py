"""`halfbyte doctor`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halfbyte.cli.output import Json, command, options_from, print_json, say, size_text
from halfbyte.doctor.options import DoctorOptions

if TYPE_CHECKING:
    from halfbyte.doctor.diagnosis import Diagnosis


@command
def doctor(
    folder: Annotated[Path, typer.Option(help="Folder whose disk is measured.")] = DoctorOptions.folder,
    disk_mb: Annotated[
        int, typer.Option(min=0, max=100_000, help="Written and read there, then removed; 0 measures no disk.")
    ] = DoctorOptions.disk_mb,
    json_output: Json = False,
) -> None:
    """Show what is installed, which engines, GPUs and disk are here, and what is missing for what.

    Example: halfbyte doctor --folder /data

    Nothing missing is an error: exit status 0.
    """
    from halfbyte.doctor.diagnosis import doctor as run

    found = run(options_from(DoctorOptions, locals()))
    if json_output:
        print_json(found.as_json())
    else:
        _print(found)


def _print(found: "Diagnosis") -> None:
    say(f"halfbyte {found.halfbyte}, Python {found.python}, {found.system}")
    say(f"{found.processors} processors, {size_text(found.memory_bytes)} of memory")
    for gpu in found.gpus:
        size = "memory unknown" if gpu["bytes"] is None else size_text(gpu["bytes"])
        say(f"GPU: {gpu['name']}, {size}, compute {gpu['compute_capability']}, driver {gpu['driver']}")
    if found.no_gpu:
        say(f"GPU: none ({found.no_gpu})")
    if found.disk is not None:
        _print_disk(found)
    say("")
    for extra in found.extras:
        count = f"{len(extra.installed)} of {len(extra.installed) + len(extra.missing)}"
        mark = "yes" if extra.is_whole else "no"
        say(f"{mark:4}{extra.name or 'core':12}{count:>9}  {extra.serves}")
    if not found.extras:
        say("extras: unknown, halfbyte runs from its source without being installed")
    say("")
    engines = (f"{name} {'not here' if version is None else version}" for name, version in found.engines.items())
    say(f"engines: {', '.join(engines)}")
    if found.missing:
        say("")
    for missing in found.missing:
        say(f"for {missing}")


def _print_disk(found: "Diagnosis") -> None:
    assert found.disk is not None
    if "error" in found.disk:
        say(f"disk of {found.disk['folder']}: {found.disk['error']}")
        return
    write, read = (size_text(found.disk[f"{way}_bytes_per_s"]) for way in ("write", "read"))
    free = size_text(found.disk["free_bytes"])
    say(f"disk of {found.disk['folder']}: writes {write}/s, reads {read}/s, {free} free")
