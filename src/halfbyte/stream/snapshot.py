"""The work folder: spill files, and after each layer what a new run needs to go on behind it.

    state.json           layer reached, fingerprint of source, sequences and options; names and SHA-256 of the files
    hidden-0, hidden-1   hidden states; a layer reads one and writes the other, so a kill never leaves half a layer
    selection-N          keys that the last layer with an indexer selected, where later layers share them
    observer-N           the observer's own state after layer N

state.json is signed (`checkpoint.resume`) and replaced atomically, after everything that it names has reached the disk.
A run goes on only from files that are what it says; otherwise it starts again from the first layer, and says why.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from halfbyte.checkpoint.resume import DamagedError, locked, read_state, remove_file, write_state
from halfbyte.checkpoint.writer import hash_file, output_error, write_whole
from halfbyte.errors import OutputError, said

STATE = "state.json"
ACTIVATIONS = ("hidden-", "selection-", "rows-")


@dataclass(frozen=True)
class State:
    """layers: how many are finished. hidden: None when the run is over and its activations are removed."""

    fingerprint: str
    layers: int
    hidden: str | None
    selection: str | None
    observer: str | None

    @property
    def files(self) -> list[str]:
        return [name for name in (self.hidden, self.selection, self.observer) if name is not None]


class Work:
    """A folder of one run; a temporary one is removed by `close`."""

    def __init__(self, folder: Path | None, note: Callable[[str], None]) -> None:
        """note: told of damage. Raises OutputError if the folder cannot be made or another run uses it."""
        self.temporary, self._note = folder is None, note
        self._state: State | None = None
        self._sums: dict[str, str] = {}
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="halfbyte-stream-")) if folder is None else folder
            self.folder.mkdir(parents=True, exist_ok=True)
            refusal = OutputError(f"{self.folder}: another run uses it", hint=said("give each run its own {work}"))
            self._lock = locked(self.folder / "lock", refusal)
        except OSError as error:
            raise output_error(folder or Path(tempfile.gettempdir()), error) from None

    def found(self, fingerprint: str) -> State | None:
        """What an earlier run left, all of it sound; None if there is nothing.

        What another job left is removed, and so is what is damaged, which is named.
        """
        try:
            document = read_state(self.folder / STATE)
            if document is not None and document["fingerprint"] == fingerprint:
                self._sums = document.pop("sums")
                self._state = State(**document)
                self._check(self._state)
                return self._state
        except DamagedError as error:
            self._note(f"{error.message}; the run starts again from the first layer")
        self._state = None
        self.clear()
        return None

    def _check(self, state: State) -> None:
        for name in state.files:
            path = self.folder / name
            try:
                digest = hash_file(path)
            except OSError as error:
                raise DamagedError(f"{path}: cannot be read: {error.strerror}") from None
            if digest != self._sums[name]:
                raise DamagedError(f"{path}: is not what the run had written")

    def write(self, name: str, content: bytes) -> None:
        """A small file, whole."""
        write_whole(self.folder / name, content)
        self.wrote(name, hashlib.sha256(content).hexdigest())

    def wrote(self, name: str, sha256: str) -> None:
        """A file of the folder has reached the disk."""
        self._sums[name] = sha256

    def commit(self, state: State) -> None:
        """The layer is finished; what older layers left is removed."""
        self._state = state
        self._sums = {name: self._sums[name] for name in state.files}
        write_state(self.folder / STATE, asdict(state) | {"sums": self._sums})
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        for path in self.folder.iterdir():
            old = path.name.startswith(("observer-", "selection-"))
            if old and path.name not in (state.selection, state.observer):
                remove_file(path)

    def clear(self) -> None:
        """Remove our files; nothing else that the folder may hold."""
        self._remove((STATE, "observer-", *ACTIVATIONS))

    def finish(self, fingerprint: str, layers: int) -> None:
        """The run is over: keep the observer's state, so that the same run again is done at once."""
        if self._state is not None:
            self.commit(State(fingerprint, layers, None, None, self._state.observer))
            self._remove(ACTIVATIONS)

    def _remove(self, beginnings: tuple[str, ...]) -> None:
        for path in self.folder.iterdir():
            if path.name.startswith(beginnings):
                remove_file(path)

    def close(self) -> None:
        os.close(self._lock)
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
