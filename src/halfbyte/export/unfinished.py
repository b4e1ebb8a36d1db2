"""Output files under construction, and the journal that lets a killed run go on where it was.

The files are `NAME.partial` until the last of them is complete and synced; then they are renamed, the first of a
series last, because that is the one that llama.cpp is given. The journal `OUT.partial.jsonl` holds the fingerprint of
the job and, line by line, how many steps are on disk for good; a line that a kill tore in half is ignored.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.writer import output_error
from halfbyte.errors import OutputError, said
from halfbyte.export.direct import open_direct, reserve, write_all, write_direct


class Unfinished:
    """The partial files of one export, locked against a second run. Use as: open, write and `reached`, `finish`."""

    def __init__(self, out: Path, paths: list[Path], sizes: list[int], fingerprint: str, discard: bool) -> None:
        """Create or resume. discard: an unfinished run of another job may be thrown away.

        Raises OutputError if another run is writing, if the unfinished run is another job's, or if the disk refuses.
        """
        self.out, self.paths, self.sizes = out, paths, sizes
        self._journal_path = out.with_name(out.name + ".partial.jsonl")
        self._files: list[int] = []
        self._direct: list[int | None] = []
        self._open_journal(fingerprint, discard)
        try:
            for path, size in zip(paths, sizes, strict=True):
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if self.done else os.O_TRUNC)
                self._files.append(os.open(partial(path), flags, 0o644))
                os.ftruncate(self._files[-1], size)
                reserve(self._files[-1], size)
                self._direct.append(open_direct(partial(path), os.O_WRONLY))
        except OSError as error:
            self.interrupt()
            raise output_error(out, error) from None

    def _open_journal(self, fingerprint: str, discard: bool) -> None:
        try:
            self._journal = os.open(self._journal_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(self._journal)
                raise OutputError(f"{self.out}: another run is writing it", hint="wait for it") from None
            lines = _lines(os.pread(self._journal, os.fstat(self._journal).st_size, 0))
            known = bool(lines) and lines[0].get("job") == fingerprint
            if lines and not known and not discard:
                os.close(self._journal)
                raise OutputError(
                    f"{self.out}: an unfinished export of another source, or with other options, lies beside it",
                    hint=said("finish that one with its own command, or throw it away with {overwrite}"),
                )
            present = all(partial(path).exists() for path in self.paths)
            self.done = max([line.get("steps", 0) for line in lines], default=0) if known and present else 0
            mine = [partial(path).name for path in self.paths]
            for name in lines[0].get("files", []) if lines else []:
                if name not in mine:  # of a job that is thrown away
                    (self.out.parent / Path(name).name).unlink(missing_ok=True)
            os.ftruncate(self._journal, 0)
            self._append({"job": fingerprint, "steps": self.done, "files": mine})
        except OSError as error:
            raise output_error(self._journal_path, error) from None

    def write(self, file: int, data: memoryview, offset: int) -> None:
        """Write all of `data` (bytes) at `offset` of file number `file`. Any number of threads may write."""
        direct = self._direct[file]
        try:
            first, last = write_direct(direct, data, offset) if direct is not None else (0, 0)
            write_all(self._files[file], data[:first], offset)
            write_all(self._files[file], data[last:], offset + last)
        except OSError as error:
            raise output_error(self.paths[file], error) from None

    def reached(self, steps: int) -> None:
        """The first `steps` steps are written: sync them, then note it."""
        try:
            for file in self._files:
                os.fdatasync(file)
            self._append({"steps": steps})
        except OSError as error:
            raise output_error(self.out, error) from None

    def finish(self) -> None:
        """Sync, give the files their names, remove the journal."""
        try:
            for file in self._files:
                os.fsync(file)
            self._close_files()
            for path in reversed(self.paths):
                os.replace(partial(path), path)
            folder = os.open(self.out.parent, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(folder)
            os.close(folder)
        except OSError as error:
            raise output_error(self.out, error) from None
        self._journal_path.unlink(missing_ok=True)
        os.close(self._journal)

    def interrupt(self) -> None:
        """Let go of the files; a later run goes on."""
        self._close_files()
        os.close(self._journal)

    def abandon(self) -> None:
        """Remove everything: the source cannot be exported as it is."""
        self.interrupt()
        for path in self.paths:
            partial(path).unlink(missing_ok=True)
        self._journal_path.unlink(missing_ok=True)

    def _close_files(self) -> None:
        for file in (*self._files, *self._direct):
            if file is not None:
                os.close(file)
        self._files, self._direct = [], []

    def _append(self, line: dict[str, Any]) -> None:
        os.lseek(self._journal, 0, os.SEEK_END)
        os.write(self._journal, json.dumps(line).encode() + b"\n")
        os.fsync(self._journal)


def partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _lines(text: bytes) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for line in text.splitlines(keepends=True):
        try:
            lines.append(json.loads(line) if line.endswith(b"\n") else {})
        except ValueError:
            break
    return [line for line in lines if line]
