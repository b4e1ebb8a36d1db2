"""Output files under construction, and the journal that lets a killed run go on where it was.

The files are `NAME.partial` until the last of them is complete and synced; then they are renamed, the first of a
series last, because that is the one that llama.cpp is given. The journal `OUT.partial.jsonl` (`checkpoint.resume`) says
line by line which steps are on disk for good, each with the CRC-32 of its bytes; what no longer has it is made again.
"""

import os
from pathlib import Path

from halfbyte.checkpoint.resume import Lines
from halfbyte.checkpoint.writer import output_error, partial
from halfbyte.export.direct import open_direct, reserve, write_all, write_direct


class Unfinished:
    """The partial files of one export, locked against a second run. Use as: open, write and `reached`, `finish`."""

    def __init__(self, out: Path, paths: list[Path], sizes: list[int], fingerprint: str, discard: bool) -> None:
        """Create or resume. discard: an unfinished run of another job may be thrown away.

        Raises OutputError if another run is writing, if the unfinished run is another job's, or if the disk refuses.
        noted: afterwards, the CRC-32 of every step that was on the disk, by number.
        """
        self.out, self.paths, self.sizes = out, paths, sizes
        self._files: list[int] = []
        self._direct: list[int | None] = []
        self._open_journal(fingerprint, discard)
        try:
            for path, size in zip(paths, sizes, strict=True):
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if self.noted else os.O_TRUNC)
                self._files.append(os.open(partial(path), flags, 0o644))
                os.ftruncate(self._files[-1], size)
                reserve(self._files[-1], size)
                self._direct.append(open_direct(partial(path), os.O_WRONLY))
        except OSError as error:
            self.interrupt()
            raise output_error(out, error) from None

    def _open_journal(self, fingerprint: str, discard: bool) -> None:
        path = partial(self.out, ".partial.jsonl")
        try:
            self._journal = Lines(
                path,
                fingerprint,
                where=self.out,
                other="an unfinished export of another source, or with other options, lies beside it",
                discard=discard,
            )
            self.damage = self._journal.damage
            self.noted = {number: total for line in self._journal.lines for number, total in line.get("sums", ())}
            mine = [partial(path).name for path in self.paths]
            for line in self._journal.discarded or ():
                for name in line.get("files", ()):
                    if name not in mine:
                        (self.out.parent / Path(name).name).unlink(missing_ok=True)
            self._journal.append({"files": mine})
        except OSError as error:
            raise output_error(path, error) from None

    def write(self, file: int, data: memoryview, offset: int) -> None:
        """Write all of `data` (bytes) at `offset` of file number `file`. Any number of threads may write."""
        direct = self._direct[file]
        try:
            first, last = write_direct(direct, data, offset) if direct is not None else (0, 0)
            write_all(self._files[file], data[:first], offset)
            write_all(self._files[file], data[last:], offset + last)
        except OSError as error:
            raise output_error(self.paths[file], error) from None

    def read(self, file: int, buffer: memoryview, offset: int) -> bool:
        """Fill `buffer` from `offset` of file number `file`; False if it ends early or cannot be read."""
        position = 0
        try:
            while position < len(buffer):
                count = os.preadv(self._files[file], [buffer[position:]], offset + position)
                if count == 0:
                    return False
                position += count
        except OSError:
            return False
        return True

    def reached(self, sums: dict[int, int]) -> None:
        """These steps are written: sync them, then note it. sums: CRC-32 of their bytes by number."""
        try:
            for file in self._files:
                os.fdatasync(file)
            self._journal.append({"sums": sorted(sums.items())})
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
        self._journal.remove()

    def interrupt(self) -> None:
        """Let go of the files; a later run goes on."""
        self._close_files()
        self._journal.close()

    def abandon(self) -> None:
        """Remove everything: the source cannot be exported as it is."""
        self._close_files()
        for path in self.paths:
            partial(path).unlink(missing_ok=True)
        self._journal.remove()

    def _close_files(self) -> None:
        for file in (*self._files, *self._direct):
            if file is not None:
                os.close(file)
        self._files, self._direct = [], []
