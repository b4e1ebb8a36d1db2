"""The work folder: spill files, and after each layer what a new run needs to go on behind it.

    state.json           layer reached, fingerprint of source, sequences and options, names of the files below
    hidden-0, hidden-1   hidden states; a layer reads one and writes the other, so a kill never leaves half a layer
    selection-N          keys that the last layer with an indexer selected, where later layers share them
    observer-N           the observer's own state after layer N

state.json is replaced atomically, after everything that it names has reached the disk.
"""

import fcntl
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from halfbyte.checkpoint.writer import output_error
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


class Work:
    """A folder of one run; a temporary one is removed by `close`."""

    def __init__(self, folder: Path | None) -> None:
        """Raises OutputError if the folder cannot be made or another run uses it."""
        self.temporary = folder is None
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="halfbyte-stream-")) if folder is None else folder
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise output_error(folder or Path(tempfile.gettempdir()), error) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise OutputError(
                f"{self.folder}: another run uses it", hint=said("give each run its own {work}")
            ) from None

    def found(self, fingerprint: str) -> State | None:
        """What an earlier run left; None if there is nothing, or of another job, which is then removed."""
        try:
            state = State(**json.loads((self.folder / STATE).read_text()))
        except (OSError, ValueError, TypeError):
            state = None
        if state is not None and state.fingerprint == fingerprint:
            return state
        self.clear()
        return None

    def write(self, name: str, content: bytes) -> None:
        try:
            with open(self.folder / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise output_error(self.folder / name, error) from None

    def commit(self, state: State) -> None:
        """The layer is finished; what older layers left is removed."""
        self.write(STATE + ".tmp", json.dumps(asdict(state)).encode())
        os.replace(self.folder / (STATE + ".tmp"), self.folder / STATE)
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        for path in self.folder.iterdir():
            old = path.name.startswith(("observer-", "selection-"))
            if old and path.name not in (state.observer, state.selection):
                path.unlink()

    def clear(self) -> None:
        """Remove our files; nothing else that the folder may hold."""
        self._remove((STATE, "observer-", *ACTIVATIONS))

    def finish(self, fingerprint: str, layers: int) -> None:
        """The run is over: keep the observer's state, so that the same run again is done at once."""
        try:
            state = State(**json.loads((self.folder / STATE).read_text()))
        except (OSError, ValueError, TypeError):
            return
        self.commit(State(fingerprint, layers, None, None, state.observer))
        self._remove(ACTIVATIONS)

    def _remove(self, beginnings: tuple[str, ...]) -> None:
        for path in self.folder.iterdir():
            if path.name.startswith(beginnings):
                path.unlink()

    def close(self) -> None:
        os.close(self._lock)
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
