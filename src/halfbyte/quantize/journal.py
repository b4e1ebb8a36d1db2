"""What a run has finished, so that the next one goes on from there: `DST/.halfbyte/journal.jsonl`.

The first line identifies the job; every later line is one finished piece: an output shard (staged, synced, hashed) or
the hash of a source shard. Lines are appended and synced one by one. A line that a kill tore in half is ignored; the
piece it was about is done again.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from halfbyte.checkpoint.writer import output_error
from halfbyte.errors import OutputError, said

STAGING = ".halfbyte"
JOURNAL = "journal.jsonl"


def has_journal(folder: Path) -> bool:
    """Whether an unfinished run is noted there."""
    return (folder / STAGING / JOURNAL).exists()


def fingerprint_of(document: Mapping[str, Any]) -> str:
    """Identifies a job: equal fingerprints give equal bytes, shard by shard. document: all that they depend on."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


class Journal:
    """Open journal of one destination, locked against a second run."""

    @classmethod
    def open(cls, folder: Path, fingerprint: str, discard: bool) -> Self:
        """Create or resume. discard: an unfinished run of another job may be thrown away.

        Raises OutputError if another run holds the lock, the unfinished run is not this job's, or the folder cannot be
        written.
        """
        try:
            return cls(folder, fingerprint, discard)
        except OSError as error:
            raise output_error(folder, error) from None

    def __init__(self, folder: Path, fingerprint: str, discard: bool) -> None:
        """See `open`."""
        self.folder = folder / STAGING
        self.shards: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, str] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise OutputError(
                f"{folder}: another run is writing here", hint="wait for it, or choose another folder"
            ) from None
        path = self.folder / JOURNAL
        lines = _complete_lines(path)
        if lines and lines[0].get("job") != fingerprint:
            if not discard:
                os.close(self._lock)
                raise OutputError(
                    f"{folder}: holds an unfinished run of another job (other source, recipe, options or version)",
                    hint=said("finish that one with its own command, or throw it away with {overwrite}"),
                )
            for entry in self.folder.iterdir():
                if entry.name != "lock" and not entry.is_dir():  # rounded experts name their job themselves
                    entry.unlink()
            lines = []
        for line in lines[1:]:
            if _has(line, shard=str, sha256=str, bytes=int, measures=dict):
                self.shards[line["shard"]] = line
            elif _has(line, source=str, sha256=str):
                self.sources[line["source"]] = line["sha256"]
        self.resumed = bool(lines)
        kept = "".join(json.dumps(line) + "\n" for line in lines or [{"job": fingerprint}])
        temporary = path.with_suffix(".new")
        temporary.write_text(kept)
        os.replace(temporary, path)
        self._file = open(path, "a")  # noqa: SIM115 - lives as long as the run

    def shard_done(self, file: str, sha256: str, size: int, measures: dict[str, Any]) -> None:
        self.shards[file] = {"shard": file, "sha256": sha256, "bytes": size, "measures": measures}
        self._append(self.shards[file])

    def source_done(self, file: str, sha256: str) -> None:
        self.sources[file] = sha256
        self._append({"source": file, "sha256": sha256})

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        os.close(self._lock)

    def drop(self) -> None:
        """The run is complete: remove the staging folder, the journal after all that it is about."""
        self.close()
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != JOURNAL:
                entry.unlink()
        shutil.rmtree(self.folder)


def _has(line: dict[str, Any], **kinds: type) -> bool:
    """A line that is not as we write it is ignored; the piece it was about is done again."""
    return all(isinstance(line.get(key), kind) for key, kind in kinds.items())


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = []
    for line in content.splitlines(keepends=True):
        try:
            document = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            break
        lines.append(document)
    return lines
