"""What a run leaves so that the next one goes on from there: a lock, a journal of lines, a state file; all checked.

A journal holds a first line that names the job and one line for each finished piece, appended and synced one by one. A
state file is replaced as a whole. Every line and every state carries a checksum of itself: what a kill tore in half or
a disk has damaged is never read as something else. A torn last line is normal; other damage is named, and the piece it
was about is done again.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfbyte.checkpoint.writer import write_whole
from halfbyte.errors import OutputError, said

if TYPE_CHECKING:
    from halfbyte.checkpoint.remote_shard import RemoteShard
    from halfbyte.checkpoint.shard import Shard

VERSION = 2
"""Of the form in which journals and states are written. 1 had no checksums."""

SUM, FORM = "sum", "form"
"""Keys that are ours in every line and state."""

THROW_AWAY = said("throw it away with {overwrite}")
FINISH_IT = said("finish that one with its own command, or throw it away with {overwrite}")


class DamagedError(OutputError):
    """What an earlier run left is not what it wrote."""


def fingerprint_of(document: Mapping[str, Any]) -> str:
    """Identifies a job: equal fingerprints give equal bytes, piece by piece. document: all that they depend on."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def source_identity(shards: "Iterable[Shard | RemoteShard]") -> list[list[Any]]:
    """What a job's fingerprint says of its source: name, size, time and header hash of every shard, by name."""
    return sorted([shard.path.name, shard.bytes, shard.mtime_ns, shard.header_sha256] for shard in shards)


def locked(path: Path, refusal: OutputError) -> int:
    """An open file (made if it is missing) that no other run holds, and that is still the one under its name.

    Raises `refusal` if another run holds it, OutputError for a folder of that name, OSError if it cannot be made.
    """
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except IsADirectoryError:
            raise OutputError(f"{path}: is a folder, wanted a file of an earlier run", hint=f"remove {path}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise refusal from None
        try:
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        os.close(file)  # replaced or removed by the run that held it a moment ago


class Lines:
    """A journal, open and locked against a second run. lines: of the run that this one goes on from, all sound.

    resumed: whether there was one. discarded: the sound lines of another job that was thrown away, for whoever has to
    clean up after it; None if nothing was. damage: what to tell the user about damaged lines, None if there are none.
    """

    def __init__(self, path: Path, job: str, *, where: Path, other: str, discard: bool) -> None:
        """Create or resume. job: its fingerprint. where: the output, for messages. other: what to call an unfinished
        run of another job. discard: that one may be thrown away, and so may what is damaged or of another version.

        Raises OutputError if another run is at work or the journal is not this job's, OSError if the disk refuses.
        """
        self.path = path
        self._file = locked(path, OutputError(f"{where}: another run is writing here", hint="wait for it to end"))
        try:
            found = _read(self._file)
            problem = found.problem(path, job, where, other)
            if problem is not None and not discard:
                raise problem
            kept = found.lines if problem is None else []
            self.lines, self.discarded = kept, None if problem is None else found.lines
            self.resumed = problem is None and found.header is not None
            self.damage = (
                f"{path}: line {', '.join(map(str, found.damaged[:5]))} damaged; what stood there is done again"
                if problem is None and found.damaged
                else None
            )
            self._header = {FORM: VERSION, "job": job}
            self._write_anew(kept)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, line: Mapping[str, Any]) -> None:
        """Note a finished piece, for good. Raises OSError."""
        os.lseek(self._file, 0, os.SEEK_END)
        _write_all(self._file, _signed(line))
        os.fsync(self._file)

    def forget(self) -> None:
        """What the lines are about is gone: begin anew. Raises OSError."""
        self.lines = []
        self._write_anew([])

    def close(self) -> None:
        os.close(self._file)

    def remove(self) -> None:
        """The run is complete: the journal goes."""
        self.path.unlink(missing_ok=True)
        self.close()

    def _write_anew(self, lines: list[dict[str, Any]]) -> None:
        """Replace the journal, without what was damaged; the lock goes over to the new file."""
        temporary = self.path.with_name(self.path.name + ".new")
        temporary.unlink(missing_ok=True)
        new = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(new, fcntl.LOCK_EX)
            _write_all(new, b"".join(map(_signed, [self._header, *lines])))
            os.fsync(new)
            os.replace(temporary, self.path)
        except BaseException:
            os.close(new)
            raise
        self._file, old = new, self._file
        os.close(old)


@dataclass(frozen=True)
class _Found:
    """A journal as it lies on the disk. header: the first line, {} if it is damaged, None if there is none.

    damaged: numbers of the other lines that are, counted from 1.
    """

    header: dict[str, Any] | None
    lines: list[dict[str, Any]]
    damaged: list[int]

    def problem(self, path: Path, job: str, where: Path, other: str) -> OutputError | None:
        """Why it is not this job's to go on from."""
        if self.header is None:
            return None
        if not self.header:
            return OutputError(f"{path}: its first line is damaged: nobody knows whose run it is", hint=THROW_AWAY)
        if self.header.get(FORM) != VERSION:
            return OutputError(f"{where}: holds an unfinished run of another version of Halfbyte", hint=FINISH_IT)
        if self.header.get("job") != job:
            return OutputError(f"{where}: {other}", hint=FINISH_IT)
        return None


def _read(file: int) -> _Found:
    content = os.pread(file, os.fstat(file).st_size, 0)
    whole, _, torn = content.rpartition(b"\n")
    parsed = [_checked(line) for line in whole.split(b"\n")] if whole or content else []
    if not parsed:
        return _Found(None if not torn else {}, [], [])
    header = parsed[0] or _unsigned(whole.split(b"\n")[0])
    lines = [line for line in parsed[1:] if line is not None]
    return _Found(header, lines, [number for number, line in enumerate(parsed[1:], 2) if line is None])


def _unsigned(line: bytes) -> dict[str, Any]:
    """The first line of a journal as older versions wrote it, {} for a damaged one of ours."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) and SUM not in document and "job" in document else {}


def _signed(document: Mapping[str, Any]) -> bytes:
    return json.dumps({**document, SUM: _sum(document)}).encode() + b"\n"


def _checked(text: bytes) -> dict[str, Any] | None:
    """What was signed; None if it is not what it was."""
    try:
        document = json.loads(text)
        stated = document.pop(SUM)
        return document if stated == _sum(document) else None
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        return None


def _sum(document: Mapping[str, Any]) -> str:
    return fingerprint_of(document)[:16]


def _write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def write_state(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a state file, signed, as a whole. Raises OutputError."""
    write_whole(path, _signed({FORM: VERSION, **document}))


def read_state(path: Path) -> dict[str, Any] | None:
    """What `write_state` wrote; None if there is nothing. Raises DamagedError for anything else."""
    try:
        document = _checked(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error.strerror}") from None
    if document is None or document.pop(FORM, None) != VERSION:
        raise DamagedError(f"{path}: damaged, or of another version of Halfbyte", hint="remove it to start anew")
    return document


def remove_file(path: Path) -> None:
    """Remove what a run left, if it is there. Raises OutputError for what has its name and is no file."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {error.strerror}", hint=f"remove {path}") from None
