"""Every command on odd command lines and odd inputs: no traceback, no hang, only the exit codes that are promised.

By hand, as many as wanted, from any seed on: `PYTHONPATH=tests python -m sound.test_fuzz 10000 [SEED] [COMMAND...]`.
"""

import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from small import runnable_changes, small_tensors, write_checkpoint

from halfbyte.api import quantize
from halfbyte.cli.main import command_of
from sound.generators import Damage, linked_copy, odd_command, surroundings
from sound.runner import HEAVY, LIGHT, Ended, Runner

ALLOWED = {0, 1, 2, 3, 130}
MOST_SECONDS = 20.0
MOST_BYTES = 3_000_000_000

SOUND: dict[str, tuple[list[str], ...]] = {
    "inspect": (["S"], ["Q"]),
    "quantize": (
        ["S", "OUT"],
        ["S", "OUT", "--overwrite"],
        ["S", "Q", "--improve", "--rounding", "gptq", "--calibrate", "data.jsonl"],
    ),
    "verify": (["S", "Q"],),
    "gate": (["Q"], ["S"], ["Q", "--depth", "full", "--source", "S"], ["--verify-decision", "Q/gate.json"]),
    "plan": (["Q", "--gpu", "b200", "--tp", "1"], ["S", "--gpu", "h100", "--gpus", "1"], ["Q", "--compare", "b200x1"]),
    "calibrate": (["S", "--data", "data.jsonl", "-o", "out.json"],),
    "compare": (["S", "Q", "--data", "data.jsonl"],),
    "search": (["S", "--data", "data.jsonl", "--bits", "9"],),
    "export": (["Q", "o.gguf"], ["S", "o.gguf"]),
    "chat": (["Q", "--prompt", "x", "--engine", "transformers", "--max-tokens", "2"],),
    "schema": (["plan"],),
    "verdict": (["empty"], ["deep.json"]),
    "evaluate": (["--power"], ["--power", "--suite", "data.jsonl"]),
}
LIGHT_COMMANDS = ("inspect", "quantize", "verify", "gate", "plan", "schema", "verdict", "evaluate")


class Fuzz:
    """scratch: of this run. Sound checkpoints are made once; every run works on a copy of its own."""

    def __init__(self, scratch: Path, runner: Runner) -> None:
        self.scratch, self.runner = scratch, runner
        name = "Qwen3-30B-A3B"
        config, tensors = small_tensors(name, **runnable_changes(name))
        write_checkpoint(scratch / "S", config, tensors)
        quantize(scratch / "S", scratch / "Q")
        self.made = {one: self._files(scratch / one) for one in ("S", "Q")}

    def one(self, command: str, seed: int) -> tuple[Ended, list[str]]:
        """One run, and what is wrong with it."""
        draw = random.Random(f"{command} {seed}")
        work = self.scratch / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for name in ("S", "Q"):
            linked_copy(self.scratch / name, work / name)
        surroundings(work)
        arguments = list(draw.choice(SOUND[command]))
        what = Damage(work / draw.choice("SQ"), draw).apply() if draw.random() < 0.7 else []
        if not what or draw.random() < 0.3:
            arguments = odd_command(command_of(command), arguments, draw)
        else:
            arguments = [command, *arguments]
        if draw.random() < 0.3:
            arguments.append("--json")
        cache = {"HALFBYTE_CACHE": str(work / "cache"), "TMPDIR": str(work), "HF_ENDPOINT": "http://127.0.0.1:9"}
        ended = self.runner.run(arguments, work, seconds=MOST_SECONDS, env=cache)
        return ended, [f"{problem} ({'; '.join(what)})" for problem in self._problems(ended)]

    def _problems(self, ended: Ended) -> list[str]:
        found = []
        if ended.code is None:
            found.append(f"did not end within {MOST_SECONDS} s")
        elif ended.code not in ALLOWED:
            found.append(f"exit code {ended.code}")
        if "Traceback" in ended.stderr or "a fault of Halfbyte's own" in ended.stderr:
            found.append("a fault of ours")
        if ended.peak > MOST_BYTES:
            found.append(f"{ended.peak / 1e9:.1f} GB resident")
        for where, text in (("stdout", ended.stdout), ("stderr", ended.stderr)):
            if any(ord(one) < 32 and one not in "\n\t" for one in text) or "\x9b" in text:
                found.append(f"control characters on {where}")
            if "\nerror: forged" in text:
                found.append(f"a forged line on {where}")
        if ended.code == 1 and not ended.stderr and not ended.stdout and ended.arguments[0] != "gate":
            found.append("nothing said")  # the gate's report may have gone to a file
        for name, made in self.made.items():
            if self._files(self.scratch / name) != made:
                found.append(f"{name} was changed in place")
        return found

    @staticmethod
    def _files(folder: Path) -> list[tuple[str, int, int]]:
        return [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()]


def shown(ended: Ended, problems: list[str]) -> str:
    return f"halfbyte {ended.arguments!r:.600}: {problems}\n{ended.stderr[-3000:]}"


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzz]:
    scratch = tmp_path_factory.mktemp("fuzz")
    with Runner(scratch, LIGHT) as runner:
        yield Fuzz(scratch, runner)


@pytest.mark.parametrize("command", LIGHT_COMMANDS)
def test_odd_commands_and_inputs(command: str, fuzz: Fuzz) -> None:
    for seed in range(12):
        ended, problems = fuzz.one(command, seed)
        assert not problems, shown(ended, problems)


@pytest.mark.slow
@pytest.mark.parametrize("command", SOUND)
def test_many_odd_commands_and_inputs(command: str, tmp_path: Path) -> None:
    with Runner(tmp_path, LIGHT + HEAVY) as runner:
        every = Fuzz(tmp_path, runner)
        for seed in range(1000, 1800):
            ended, problems = every.one(command, seed)
            assert not problems, shown(ended, problems)


def main(count: int, first: int = 0, *commands: str) -> int:
    """Run so many, and print each fault. Returns how many there were."""
    codes: Counter[tuple[str, int | None]] = Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        heavy = set(commands or SOUND) - set(LIGHT_COMMANDS)
        with Runner(scratch, LIGHT + HEAVY if heavy else LIGHT) as runner:
            fuzz = Fuzz(scratch, runner)
            names = commands or tuple(SOUND)
            for number in range(count):
                ended, problems = fuzz.one(names[number % len(names)], first + number)
                codes[ended.arguments[0], ended.code] += 1
                if problems:
                    faults += 1
                    print(f"seed {first + number}", shown(ended, problems), flush=True)
                if number % 500 == 499:
                    print(f"{number + 1} runs, {faults} faults", flush=True)
    print(*sorted(codes.items(), key=str), sep="\n")
    print(f"{count} runs, {faults} faults")
    return faults


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(int(sys.argv[1]), int((*sys.argv, "0")[2]), *sys.argv[3:]) > 0)
