"""How commands print: results on stdout, everything else on stderr, errors the same everywhere.

`--json` prints exactly one JSON document on stdout, also when the command fails.
"""

import functools
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from halfbyte.disk import check_output, reason
from halfbyte.errors import HalfbyteError, OutputError, UsageError, said
from halfbyte.progress import Bar, Plain, Progress, tell
from halfbyte.text import block, json_text, line

if TYPE_CHECKING:
    from rich.table import Table

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

F = TypeVar("F", bound=Callable[..., None])

Options = TypeVar("Options")

FLAGS = {"max_shard_bytes": "--max-shard-size"}
"""Options whose flag is not their name."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Trust symbolic links that lead out of the checkpoint's folder.")
]

Plot = Annotated[Path | None, typer.Option("--plot", help="Draw it: FILE.svg, or FILE.html with the tables too.")]

NARROW = 80
"""Columns where output is no terminal."""

GAP = 3
"""Columns between two cells."""

INTERRUPTED = 130
TRACEBACK = "HALFBYTE_TRACEBACK"
"""Environment variable that shows where a fault of ours was made."""


class StdoutError(OutputError):
    """Standard output takes no more."""


def command(function: F) -> F:
    """Turn errors into what users see: one message, the error's exit code, no traceback; Ctrl-C exits 130."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            flush()
        except typer.Exit as done:
            code = done.exit_code
            try:
                flush()
            except (ReaderGone, HalfbyteError) as error:
                code = exit_code_of(error)
            raise typer.Exit(code) from None
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(exit_code_of(error, as_json=bool(kwargs.get("json_output")))) from None

    return run  # type: ignore[return-value]


def exit_code_of(error: BaseException, as_json: bool = False) -> int:
    """Say what went wrong, and with which code to leave. A reader that has seen enough is no error."""
    if isinstance(error, ReaderGone | BrokenPipeError):
        sys.stdout = None  # what is left in its buffer has no reader
        return 0
    if isinstance(error, KeyboardInterrupt):
        tell("interrupted; the same command goes on from here")
        return INTERRUPTED
    if isinstance(error, typer.Abort):
        tell("Aborted!")
        return 1
    if isinstance(error, HalfbyteError):
        return told(error, as_json)
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # the parser's own, words of the user in them
        setattr(error, "message", _advised(error))  # noqa: B010  its type is private
        words = io.StringIO()
        error.show(file=words)
        tell(block(words.getvalue()).rstrip("\n"), whole=True)
        return int(error.exit_code)
    if os.environ.get(TRACEBACK):
        raise error
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return told(OutputError(f"{where}{reason(error)}"), as_json)
    if isinstance(error, MemoryError):
        return told(HalfbyteError("not enough memory"), as_json)
    return told(InternalError(error), as_json)


def _advised(error: BaseException) -> str:
    """The parser's message, with the nearest option where an unknown one was given."""
    message, wrong = line(getattr(error, "message", "")), getattr(error, "option_name", None)
    known = getattr(error, "possibilities", None)
    if not (isinstance(wrong, str) and known):
        return message
    setattr(error, "possibilities", None)  # noqa: B010  else it lists them all
    near = get_close_matches(wrong, known, n=1, cutoff=0)
    return f"{message}. Did you mean {near[0]!r}?"


class InternalError(HalfbyteError):
    """A fault of ours that nothing foresaw."""

    kind = "internal"

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            f"a fault of Halfbyte's own: {type(error).__name__}: {str(error)[:300]}",
            hint=f"please report it, with what {TRACEBACK}=1 shows",
        )


def options_from(kind: type[Options], values: dict[str, Any], **parsed: Any) -> Options:
    """The options of a command, from its parameters of the same names. parsed: those that users write otherwise."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in names} | parsed)


def flag(option: str) -> str:
    """An option as users type it."""
    return FLAGS.get(option, f"--{option.replace('_', '-')}")


def fail(error: HalfbyteError, as_json: bool) -> None:
    """See `told`; then leave."""
    raise typer.Exit(told(error, as_json))


def told(error: HalfbyteError, as_json: bool) -> int:
    """The message on stderr, where people and logs look; with --json the document too, for the program that called.

    Returns the code to leave with.
    """
    message, hint = error.spelled(flag)
    if isinstance(error, StdoutError):
        sys.stdout = None
    elif as_json:
        try:
            print_json({"error": {"kind": error.kind, "message": message, "hint": hint}})
        except ReaderGone:
            sys.stdout = None
        except StdoutError as full:
            return told(full, as_json)
    tell(f"error: {message}")
    if hint:
        tell(f"hint: {hint}")
    return error.exit_code


class Stdout(io.TextIOWrapper):
    """Standard output, whoever writes to it: what cannot be written is an error of ours, which no library takes for
    its own."""

    @classmethod
    def take(cls) -> None:
        """Put it in place. No character stops a message, whatever the terminal can show."""
        given = sys.stdout
        if isinstance(given, io.TextIOWrapper):
            given.flush()
            line_buffering, encoding = given.line_buffering, given.encoding
            sys.stdout = cls(given.detach(), encoding, "backslashreplace", line_buffering=line_buffering)

    def write(self, text: str) -> int:
        with _written():
            return super().write(text)

    def flush(self) -> None:
        with _written():
            super().flush()


class ReaderGone(Exception):
    """Whoever read standard output has seen enough."""


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        raise StdoutError(f"standard output: cannot be written: {reason(error)}") from None


def flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def say(text: object) -> None:
    """One line on stdout, whatever is in it."""
    print(line(text))


def say_block(text: str) -> None:
    """Text of several lines on stdout, as it ends."""
    print(block(text), end="")


def print_json(document: Any, indent: int | None = None) -> None:
    print(json_text(document, indent), flush=True)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A live bar on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        with Bar() as bar:
            yield bar
    else:
        yield Plain()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str] = ()) -> None:
    """A table on stdout; the first column and any named `format` are text, the others numbers.

    One that is wider than the terminal, or than 80 columns where there is none, is shown in pieces, the first column in
    each of them.
    """
    from rich.console import Console

    console = Console()
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = NARROW
    cells = [[line(cell) for cell in row] for row in rows]
    widths = [
        max(len(row[at]) for row in [columns, *cells, *([footer] if footer else [])]) for at in range(len(columns))
    ]
    for number, piece in enumerate(_pieces(widths, console.width)):
        console.print(_table(line(title) if number == 0 else "", piece, columns, cells, footer))


def _pieces(widths: Sequence[int], most: int) -> list[list[int]]:
    """Columns by number, as many side by side as fit; the first in each piece. widths: of their longest cells."""
    pieces, used = [[0]], widths[0] + GAP
    for at, width in enumerate(widths[1:], 1):
        if used + width + GAP > most and len(pieces[-1]) > 1:
            pieces.append([0])
            used = widths[0] + GAP
        pieces[-1].append(at)
        used += width + GAP
    return pieces


def _table(
    title: str, piece: Sequence[int], columns: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str]
) -> "Table":
    """piece: the columns to show. Cells that are wider than the terminal are folded, never cut."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_footer=bool(footer),
        pad_edge=False,
    )
    for at in piece:
        justify: Literal["left", "right"] = "left" if at == 0 or columns[at] in ("format", "reason") else "right"
        table.add_column(columns[at], justify=justify, footer=footer[at] if footer else "", overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[at]) for at in piece))
    return table


def check_plot(plot: Path | None, inputs: Iterable[str | Path | None]) -> None:
    """Before the work: whether `--plot` can be drawn, and takes no input's place. Raises HalfbyteError."""
    if plot is not None:
        from halfbyte.plots.page import check_plot as check

        check(plot)
        check_output(plot, [Path(one) for one in inputs if one is not None])


def draw(plot: Path | None, command: str, document: dict[str, Any]) -> None:
    """Write `--plot`, if it was asked for. document: as the command's `--json` prints it."""
    if plot is not None:
        from halfbyte.plots.page import write_plot
        from halfbyte.report.drawn import DRAWN

        write_plot(plot, f"halfbyte {command}", DRAWN[command](document))
        tell(f"drawn in {plot}")


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
