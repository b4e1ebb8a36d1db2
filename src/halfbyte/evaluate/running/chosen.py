"""What a command names: the URL of a served model, or a checkpoint folder or GGUF that is served for the run."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from halfbyte.errors import UsageError
from halfbyte.evaluate.running.embedded import GGUF, Engine, embedded, identity_of
from halfbyte.evaluate.running.targets import KEY_ENV, Target, target_of
from halfbyte.progress import Progress


@dataclass(frozen=True)
class Chosen:
    """Who is to be asked: a target, or what is served for the run. name: by which a resumed run knows it."""

    name: str
    target: Target | None = None
    path: Path | None = None

    @contextmanager
    def opened(self, engine: Engine, progress: Progress) -> Iterator[Target]:
        """Until the block ends. Raises HalfbyteError for what cannot be served."""
        if self.target is not None:
            yield self.target
            return
        assert self.path is not None
        with embedded(self.path, engine, progress) as target:
            yield target


def chosen(text: str, key_env: str = KEY_ENV, known: Collection[str] = ()) -> Chosen:
    """By URL, checkpoint folder or GGUF. known: names of an earlier run's, for a URL without a model.

    Raises UsageError; DataError for a server that does not answer, or a path that is none.
    """
    path = Path(text)
    if "://" not in text and text and path.exists():
        if not path.is_dir() and path.suffix != GGUF:
            raise UsageError(f"{text[:120]}: is no checkpoint folder and no {GGUF} file")
        return Chosen(f"{path.resolve().name}@{identity_of(path)}", path=path)
    target = target_of(text, key_env, known)
    return Chosen(target.name, target)
