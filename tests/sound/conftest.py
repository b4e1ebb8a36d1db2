"""Commands in forked processes, and one sound checkpoint with its quantized one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from small import runnable_changes, small_tensors, write_checkpoint

from halfbyte.api import quantize
from sound.runner import HEAVY, LIGHT, Ended, Runner

NAME = "Qwen3-30B-A3B"


class Desk:
    """A folder to work in, with checkpoints S and its quantized Q, and commands that run there."""

    def __init__(self, folder: Path, runner: Runner) -> None:
        self.folder, self.runner = folder, runner

    def run(self, *arguments: object, **options: object) -> Ended:
        return self.runner.run([str(one) for one in arguments], self.folder, **options)  # type: ignore[arg-type]

    def refused(self, *arguments: object, code: int = 1) -> str:
        """The one message of a command that must fail. Nothing else is said, and nothing of ours went wrong."""
        ended = self.run(*arguments)
        assert (ended.code, ended.stdout) == (code, ""), ended
        errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, ended.stderr
        assert "fault of Halfbyte" not in ended.stderr
        return errors[0]


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.mktemp("runner"), LIGHT + HEAVY) as started:
        yield started


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    config, tensors = small_tensors(NAME, **runnable_changes(NAME))
    write_checkpoint(folder / "S", config, tensors)
    quantize(folder / "S", folder / "Q")
    return folder


@pytest.fixture
def desk(tmp_path: Path, made: Path, runner: Runner) -> Desk:
    import shutil

    for name in ("S", "Q"):
        shutil.copytree(made / name, tmp_path / name)
    (tmp_path / "data.jsonl").write_text('{"input_ids": [1, 2, 3, 4, 5, 6, 7, 8]}\n')
    return Desk(tmp_path, runner)
