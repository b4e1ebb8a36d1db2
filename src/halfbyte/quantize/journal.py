"""What a run has finished, so that the next one goes on from there: `DST/.halfbyte/journal.jsonl`.

Behind the line that names the job (`checkpoint.resume`), every line is one finished piece: an output shard (staged,
synced, hashed) or the hash of a source shard. The piece that a damaged or torn line was about is done again.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from halfbyte.checkpoint.resume import Lines
from halfbyte.checkpoint.writer import output_error

STAGING = ".halfbyte"
JOURNAL = "journal.jsonl"


def has_journal(folder: Path) -> bool:
    """Whether an unfinished run is noted there."""
    return (folder / STAGING / JOURNAL).exists()


class Journal:
    """Open journal of one destination, locked against a second run."""

    @classmethod
    def open(cls, folder: Path, fingerprint: str, discard: bool, note: Callable[[str], None]) -> Self:
        """Create or resume. discard: an unfinished run of another job may be thrown away. note: told of damage.

        Raises OutputError if another run holds the lock, the unfinished run is not this job's, or the folder cannot be
        written.
        """
        try:
            opened = cls(folder, fingerprint, discard)
        except OSError as error:
            raise output_error(folder, error) from None
        if opened.damage is not None:
            note(opened.damage)
        return opened

    def __init__(self, folder: Path, fingerprint: str, discard: bool) -> None:
        """See `open`."""
        self.folder = folder / STAGING
        self.shards: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, str] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lines = Lines(
            self.folder / JOURNAL,
            fingerprint,
            where=folder,
            other="holds an unfinished run of another job (other source, recipe, options or version)",
            discard=discard,
        )
        self.damage = self._lines.damage
        if self._lines.discarded is not None:
            for entry in self.folder.iterdir():
                if entry.name != JOURNAL and not entry.is_dir():  # rounded experts name their job themselves
                    entry.unlink()
        for line in self._lines.lines:
            if "shard" in line:
                self.shards[line["shard"]] = line
            else:
                self.sources[line["source"]] = line["sha256"]

    def shard_done(self, file: str, sha256: str, size: int, measures: dict[str, Any]) -> None:
        self.shards[file] = {"shard": file, "sha256": sha256, "bytes": size, "measures": measures}
        self._lines.append(self.shards[file])

    def source_done(self, file: str, sha256: str) -> None:
        self.sources[file] = sha256
        self._lines.append({"source": file, "sha256": sha256})

    def close(self) -> None:
        self._lines.close()

    def drop(self) -> None:
        """The run is complete: remove the staging folder, the journal after all that it is about."""
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != JOURNAL:
                entry.unlink()
        self._lines.remove()
        shutil.rmtree(self.folder)
