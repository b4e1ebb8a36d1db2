"""How commands print: results on stdout, everything else on stderr, errors the same everywhere.

`--json` prints exactly one JSON document on stdout, also when the command fails.
"""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Annotated, Any, TypeVar

import typer

from halfbyte.errors import HalfbyteError, UsageError, said
from halfbyte.progress import Bar, Plain, Progress

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

F = TypeVar("F", bound=Callable[..., None])

Options = TypeVar("Options")

FLAGS = {"max_shard_bytes": "--max-shard-size"}
"""Options whose flag is not their name."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def command(function: F) -> F:
    """Turn errors into what users see: one message, the error's exit code, no traceback; Ctrl-C exits 130."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except HalfbyteError as error:
            fail(error, as_json=bool(kwargs.get("json_output")))
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            sys.stdout = None
            raise typer.Exit(0) from None

    return run  # type: ignore[return-value]


def options_from(kind: type[Options], values: dict[str, Any], **parsed: Any) -> Options:
    """The options of a command, from its parameters of the same names. parsed: those that users write otherwise."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in names} | parsed)


def flag(option: str) -> str:
    """An option as users type it."""
    return FLAGS.get(option, f"--{option.replace('_', '-')}")


def fail(error: HalfbyteError, as_json: bool) -> None:
    """The message on stderr, where people and logs look; with --json the document too, for the program that called."""
    message, hint = error.spelled(flag)
    if as_json:
        print_json({"error": {"kind": error.kind, "message": message, "hint": hint}})
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    raise typer.Exit(error.exit_code)


def print_json(document: Any, indent: int | None = None) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=indent), flush=True)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A live bar on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        with Bar() as bar:
            yield bar
    else:
        yield Plain()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str] = ()) -> None:
    """A table on stdout; the first column and any named `format` are text, the others numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_footer=bool(footer), pad_edge=False)
    for i, name in enumerate(columns):
        justify = "left" if i == 0 or name in ("format", "reason") else "right"
        table.add_column(name, justify=justify, footer=footer[i] if footer else "", no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def parse_size(text: str, option: str = "max_shard_bytes") -> int:
    """Bytes from `5GB`, `500 MB`, `4GiB` or a plain number. option: its name, for the message. Raises UsageError."""
    number = text.strip().rstrip("BKMGTIbkmgti ")
    unit = text.strip()[len(number) :].strip().upper()
    try:
        size = int(float(number) * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise UsageError(said(f"{{{option}}} {{text!r}}: wanted a size like 5GB", text=text)) from None
    if size < 1:
        raise UsageError(said(f"{{{option}}} {{text!r}}: wanted at least one byte", text=text))
    return size


def parse_budget(text: str | None) -> int | None:
    """Bytes of a memory budget, None for no bound. Raises UsageError."""
    return None if text is None else parse_size(text, "memory_budget")


def size_text(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size_bytes) < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.2f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3f} TB"


def role_text(row: dict[str, Any]) -> str:
    return f"{row['role']} (MTP)" if row["mtp"] else str(row["role"])
