"""Kinds of damage to a file that an interrupted run left, drawn at random."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from halfbyte.cli.main import app

Damage = Callable[[Path, random.Random], None]


def deleted(path: Path, chance: random.Random) -> None:
    path.unlink()


def cut(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content))])


def lengthened(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randint(1, 5000)))


def flipped(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def edited(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    at, size = chance.randrange(len(content)), chance.randint(1, 200)
    content[at : at + size] = chance.randbytes(min(size, len(content) - at))
    path.write_bytes(content)


def emptied(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"")


def a_folder(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


KINDS: tuple[Damage, ...] = (deleted, cut, lengthened, flipped, edited, emptied, a_folder)


FEW = 4
"""Files that are damaged where not every one is."""


def check_every(
    left: Path,
    out: Path,
    words: Callable[[Path], list[str]],
    result: Callable[[Path, str], object],
    every: bool = False,
    again: Callable[[Path], list[str]] | None = None,
) -> None:
    """Damage some files of `left`, or every one in every way and twice, and hold what comes of it the same.

    The command is run on `out`, a copy. words: the command line for a folder. result: what a finished run left, with
    what an undamaged resume leaves as the measure; it is told what the command printed. A refusal is one line that
    names the file; what it names is removed, and then the run has to succeed, by the words `again` if there are any.
    """
    shutil.copytree(left, out)
    wanted = result(out, run(words(out)))
    shutil.rmtree(out)
    names = sorted(str(path.relative_to(left)) for path in left.rglob("*") if path.is_file())
    if not every:
        names = random.Random(left.name + str(len(names))).sample(names, min(len(names), FEW))
    for name in names:
        chance = random.Random(name)
        for kind in KINDS if every else chance.sample(KINDS, 1):
            if kind in (cut, flipped, edited) and not (left / name).stat().st_size:
                continue
            for seed in range(2 if every else 1):
                shutil.copytree(left, out)
                kind(out / name, random.Random(f"{kind.__name__} {name} {seed}"))
                done = CliRunner().invoke(app, words(out))
                if done.exit_code == 1:
                    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
                    assert len(errors) == 1, (name, kind, done.output, done.exception)
                    assert Path(name).name in errors[0], (name, kind, errors)
                    damaged = out / name
                    shutil.rmtree(damaged) if damaged.is_dir() else damaged.unlink(missing_ok=True)
                    done = CliRunner().invoke(app, again(out) if again else words(out))
                assert done.exit_code == 0, (name, kind, done.output, done.exception)
                assert result(out, done.stdout) == wanted, (name, kind, done.output)
                shutil.rmtree(out)


def run(words: list[str]) -> str:
    """What the command printed on stdout."""
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.stdout
