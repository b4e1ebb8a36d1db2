"""`halfbyte verify`"""

from pathlib import Path
from typing import Annotated

import typer

from halfbyte.cli.output import FollowLinks, Json, command, options_from, print_json, print_table, say, shown_progress
from halfbyte.quantize.verify_options import VerifyOptions


@command
def verify(
    src: Annotated[str, typer.Argument(help="The source: folder, hub name or URL.")],
    dst: Annotated[Path, typer.Argument(help="The checkpoint made from it, or its export as .gguf.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. [default: one per processor]")] = None,
    tokenizer_pre: Annotated[str | None, typer.Option(help="That the .gguf was exported with.")] = None,
    follow_links: FollowLinks = False,
    json_output: Json = False,
) -> None:
    """Check a quantized checkpoint against its source: hashes, every kept byte, every packed tensor's error.

    Exits with 1 if anything differs. Example: halfbyte verify ./glm ./glm-nvfp4
    """
    options = options_from(VerifyOptions, locals())
    if dst.suffix == ".gguf":
        _verify_gguf(Path(src), dst, options, json_output)
        return
    from halfbyte.quantize.verify import verify as run

    with shown_progress() as progress:
        result = run(src, dst, options, progress=progress)
    if json_output:
        print_json(result.as_json())
    else:
        if result.worst:
            rows = [[name, f"{error:.5f}"] for name, error in result.worst]
            print_table("largest errors", ["tensor", "relative error"], rows)
        for found in result.mismatches:
            say(f"MISMATCH {found.tensor}: {found.reason}")
        if result.improving is not None:
            say(result.improving)
        hashes = f"{result.hashed_files} file hashes" if result.hashed_files else "no halfbyte.json, so no hashes"
        outcome = "ok" if result.ok else "NOT OK"
        say(f"{outcome}: {result.tensors:,} tensors, {hashes}, {len(result.mismatches)} mismatch(es)")
    if not result.ok:
        raise typer.Exit(1)


def _verify_gguf(src: Path, out: Path, options: VerifyOptions, json_output: bool) -> None:
    """A GGUF is lossless or says that it is not; then it is the checkpoint's own rounding, block by block, or wrong."""
    from halfbyte.export import verify_gguf

    with shown_progress() as progress:
        result = verify_gguf(
            src, out, tokenizer_pre=options.tokenizer_pre, follow_links=options.follow_links, progress=progress
        )
    if json_output:
        mismatches = [dict(zip(("tensor", "reason"), line.split(": ", 1), strict=False)) for line in result.problems]
        document = {"ok": result.ok, "tensors": result.tensors, "mismatches": mismatches, "worst": []}
        lossy = {} if result.lossy is None else {"lossy": result.lossy, "relative_error": result.error}
        print_json(document | lossy)
    else:
        for line in result.problems:
            say(f"MISMATCH {line}")
        unchecked = f", {len(result.unchecked)} left out by llama.cpp" if result.unchecked else ""
        proof = "lossless" if result.lossy is None else f"lossy: exactly what rounding to {result.lossy} gives"
        outcome = f"ok, {proof}" if result.ok else "NOT OK"
        if result.lossy is not None and result.error is not None:
            say(f"largest relative error of a tensor: {result.error:.5f}")
        say(f"{outcome}: {result.tensors:,} tensors and {result.keys} metadata keys{unchecked}")
    if not result.ok:
        raise typer.Exit(1)
