"""Opens several models in one process: the budget is divided, files that spill go where the user wants them."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import output_error
from halfbyte.disk import check_apart, check_work
from halfbyte.process import rss_bytes
from halfbyte.progress import NotesOf, Progress
from halfbyte.stream.executor import Streamed

LOGIT_SHARE = 16


@dataclass(frozen=True)
class Opening:
    """device: `cpu` or `cuda`. memory_budget: resident bytes of the process. work: where rows that spill go.

    resume: `work` is kept until the models are closed without an error, for the same run to go on in.
    """

    device: str
    memory_budget: int | None = None
    work: Path | None = None
    resume: bool = False

    @contextmanager
    def models(
        self, wanted: Sequence[tuple[Checkpoint, str | None]], progress: Progress | None = None
    ) -> Iterator[list[Streamed]]:
        """Streamed models of (checkpoint, activations), closed at the end, files removed. progress: hears of damage."""
        with ExitStack() as stack:
            budget = self._share(len(wanted))
            folders: list[Path | None] = [None] * len(wanted)
            inputs = [folder for checkpoint, _ in wanted for folder in checkpoint.kept_apart()]
            if self.work is not None:
                check_work(self.work, inputs)
            if self.work is not None and self.resume:
                own = [self.work / f"model-{i}" for i in range(len(wanted))]
                for place in own:
                    for folder in inputs:
                        check_apart(folder, place)  # it will be removed
                folders = list(own)
            elif self.work is not None and budget is not None:  # without a budget nothing spills
                try:
                    self.work.mkdir(parents=True, exist_ok=True)
                    made = stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-", dir=self.work))
                except OSError as error:
                    raise output_error(self.work, error) from None
                folders = [Path(made) / str(i) for i in range(len(wanted))]
            models = []
            for (checkpoint, activations), work in zip(wanted, folders, strict=True):
                model = Streamed.open(
                    checkpoint,
                    device=self.device,
                    memory_budget=budget,
                    activations=activations,
                    work=work,
                    progress=None if progress is None else NotesOf(progress),
                )
                stack.callback(model.close)
                models.append(model)
            yield models
            if self.work is not None and self.resume:
                stack.close()
                for done in folders:
                    if done is not None:
                        shutil.rmtree(done, ignore_errors=True)

    @property
    def logit_bytes(self) -> int | None:
        return None if self.memory_budget is None else self.memory_budget // LOGIT_SHARE

    def _share(self, models: int) -> int | None:
        """Each model's budget counts what the process has resident already, once; the rest is divided."""
        if self.memory_budget is None:
            return None
        resident = rss_bytes()
        room = self.memory_budget - self.memory_budget // LOGIT_SHARE - resident
        return resident + max(0, room) // models
