"""The data of a search and what was measured on it. With a work folder, what was found outlives a kill."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfbyte.checkpoint.resume import fingerprint_of, read_state, remove_file, source_identity, write_state
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import output_error
from halfbyte.errors import HalfbyteError
from halfbyte.formats.storage import StorageFormat
from halfbyte.progress import Progress
from halfbyte.search.groups import Group
from halfbyte.search.options import SearchOptions

if TYPE_CHECKING:
    from halfbyte.compare.lockstep import Spans

FOUND = "found-"
PASS = "pass"


class Measured:
    """job: what runs. folder: the work folder, or a temporary one."""

    def __init__(
        self, source: Checkpoint, job: "Spans", device: str, budget: int | None, folder: Path, progress: Progress
    ) -> None:
        self._source, self._job, self._folder, self._progress = source, job, folder, progress
        self._device, self._budget = device, budget

    @classmethod
    @contextmanager
    def opened(
        cls, source: Checkpoint, documents: Sequence[Any], options: SearchOptions, progress: Progress
    ) -> "Iterator[Measured]":
        """The work folder is emptied of what was ours once all is measured."""
        import torch

        from halfbyte.compare.lockstep import Spans
        from halfbyte.compare.opening import LOGIT_SHARE
        from halfbyte.compare.tokens import LOGIT_BYTES

        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        ids = [torch.from_numpy(document.ids) for document in documents]
        logit_bytes = LOGIT_BYTES if options.memory_budget is None else options.memory_budget // LOGIT_SHARE
        job = Spans(ids, [slice(0, len(one)) for one in ids], len(ids), logit_bytes)
        temporary = options.work is None
        folder = Path(options.work) if options.work is not None else Path(tempfile.gettempdir())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if temporary:
                folder = Path(tempfile.mkdtemp(prefix="halfbyte-search-"))
        except OSError as error:
            raise output_error(folder, error) from None
        try:
            yield cls(source, job, device, options.memory_budget, folder, progress)
        finally:
            if temporary:
                shutil.rmtree(folder, ignore_errors=True)
        for path in folder.glob(f"{FOUND}*"):
            remove_file(path)

    def alone(self, groups: Sequence[Group], forms: Mapping[str, StorageFormat]) -> list[dict[str, float]]:
        """For each group and format mean KL(source ‖ only that rounded), nats."""
        damages = iter(self._kl([{group: form} for group in groups for form in forms.values()]))
        return [{name: next(damages) for name in forms} for _ in groups]

    def whole(self, choices: Sequence[Sequence[Group]], form: StorageFormat) -> list[float]:
        """Mean KL(source ‖ choice) of each choice of groups, nats."""
        return self._kl([dict.fromkeys(choice, form) for choice in choices])

    def _kl(self, choices: Sequence[Mapping[Group, StorageFormat]]) -> list[float]:
        from halfbyte.compare.opening import Opening
        from halfbyte.search.damage import measure

        key = self._key(choices)
        path = self._folder / f"{FOUND}{key[:16]}.json"
        try:
            kept = read_state(path)
        except HalfbyteError as error:
            self._progress.note(f"{error.message}; it is measured again")
            kept = None
        if kept is not None and kept["key"] == key:
            return list(kept["kl"])
        opening = Opening(self._device, self._budget, self._folder / PASS, resume=True)
        try:
            found = measure(self._source, choices, self._job, opening, self._progress)
            write_state(path, {"key": key, "kl": found})
            shutil.rmtree(self._folder / PASS, ignore_errors=True)
        except OSError as error:
            raise output_error(self._folder, error) from None
        return found

    def _key(self, choices: Sequence[Mapping[Group, StorageFormat]]) -> str:
        return fingerprint_of(
            {
                "source": source_identity(self._source.shards.values()),
                "data": [one.tolist() for one in self._job.ids],
                "choices": [[[group.label, form.name] for group, form in choice.items()] for choice in choices],
                "device": self._device,
            }
        )
