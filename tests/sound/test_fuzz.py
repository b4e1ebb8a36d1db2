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
from export.checkpoints import checkpoint_with
from small import runnable_changes

from halfbyte.api import quantize
from halfbyte.cli.main import command_of
from sound.generators import Damage, linked_copy, odd_command, surroundings
from sound.papers import OddServer, odd_server, write_papers
from sound.runner import HEAVY, LIGHT, Ended, Runner

ALLOWED = {0, 1, 2, 3, 130}
NAME = "Qwen3-30B-A3B"
MOST_SECONDS = 20.0
MOST_BYTES = 3_000_000_000

SOUND: dict[str, tuple[list[str], ...]] = {
    "inspect": (["S"], ["Q"]),
    "quantize": (
        ["S", "OUT"],
        ["S", "OUT", "--overwrite"],
    ),
    "quantize --improve": (["S", "Q", "--improve", "--rounding", "gptq", "--calibrate", "data.jsonl"],),
    "verify": (["S", "Q"],),
    "gate": (
        ["Q"],
        ["S"],
        ["Q", "--depth", "full", "--source", "S"],
        ["--verify-decision", "Q/gate.json"],
        ["URL", "--timeout", "5"],
    ),
    "plan": (
        ["Q", "--gpu", "b200", "--tp", "1"],
        ["S", "--gpu", "h100", "--gpus", "1"],
        ["Q", "--compare", "b200x1"],
        ["URL", "--gpu", "b200", "--timeout", "5"],
    ),
    "calibrate": (["S", "--data", "data.jsonl", "-o", "out.json"],),
    "compare": (["S", "Q", "--data", "data.jsonl"],),
    "search": (["S", "--data", "data.jsonl", "--bits", "9"],),
    "export": (["Q", "o.gguf"], ["S", "o.gguf"]),
    "chat": (
        ["Q", "--prompt", "x", "--engine", "transformers", "--max-tokens", "2"],
        ["Q", "--prompt", "x", "--max-tokens", "2"],
        ["S", "--prompt", "x", "--max-tokens", "2"],
    ),
    "schema": (["plan"], ["halfbyte"], ["gate"], ["recipe"], ["policy"]),
    "verdict": (["D/card.yaml"], ["empty"], ["deep.json"]),
    "evaluate": (
        ["--power"],
        ["--power", "--suite", "D/suite.jsonl"],
        ["--from", "D/a", "--against", "D/b"],
        ["--from", "D/a", "--against", "D/c", "--cluster", "passage"],
    ),
    "evaluate --suite": (
        ["--suite", "D/suite.jsonl", "--candidate", "URL", "--baseline", "URL", "--limit", "2", "--anyway"],
    ),
    "probe": (
        ["URL", "--reference", "D/ref.json"],
        ["--make-reference", "Q", "--data", "data.jsonl", "-o", "out.json", "--positions", "50"],
    ),
    "tenants": (
        ["add", "zeta", "--state", "D/state"],
        ["list", "--state", "D/state"],
        ["show", "acme", "--state", "D/state"],
        ["rotate", "acme", "--state", "D/state"],
        ["revoke", "acme", "--state", "D/state"],
    ),
    "usage": (["--state", "D/state"], ["--state", "D/state", "--by", "tenant,day", "--format", "focus"]),
    "serve": (
        ["Q", "--print"],
        ["Q", "--print", "--engine", "sglang", "--hardware", "b200x8"],
        ["Q", "--print", "--engine", "vllm", "--hardware", "h100x1", "--price", "D/prices.json"],
        ["m", "--upstream", "URL", "--port", "0", "--state", "D/state"],
        ["m", "--upstream", "URL", "--port", "0", "--state", "D/state", "--probe", "D/ref.json"],
        ["Q", "--port", "0", "--state", "D/state", "--price", "D/prices.json"],
    ),
}
LIGHT_COMMANDS = (
    "inspect", "quantize", "verify", "gate", "plan", "schema", "verdict", "evaluate", "evaluate --suite", "tenants",
    "usage", "serve",
)  # fmt: skip
ENDLESS, ENDLESS_SECONDS = ("serve", "evaluate --suite"), 3.0
"""A door that opened, and whoever asks again after an odd answer, are ended by Ctrl-C."""


class Fuzz:
    """scratch: of this run. Sound checkpoints are made once; every run works on a copy of its own."""

    def __init__(self, scratch: Path, runner: Runner, server: OddServer) -> None:
        self.scratch, self.runner, self.server = scratch, runner, server
        checkpoint_with(scratch / "S", NAME, runnable_changes(NAME), {})
        quantize(scratch / "S", scratch / "Q")
        write_papers(scratch / "D")
        made = runner.run(["tenants", "add", "acme", "--state", "D/state", "--tokens-per-day", "9"], scratch)
        assert made.code == 0, made
        self.made = {one: self._files(scratch / one) for one in ("S", "Q")}

    def one(self, command: str, seed: int) -> tuple[Ended, list[str]]:
        """One run of a line of SOUND, and what is wrong with it."""
        draw, verb = random.Random(f"{command} {seed}"), command.partition(" ")[0]
        self.server.draw = random.Random(seed)
        work = self.scratch / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for name in ("S", "Q"):
            linked_copy(self.scratch / name, work / name)
        shutil.copytree(self.scratch / "D", work / "D")
        surroundings(work)
        arguments = list(draw.choice(SOUND[command]))
        read = sorted({word.partition("/")[0] for word in arguments if word[0] in "SQD"} & {"S", "Q", "D"}) or ["Q"]
        what = Damage(work / draw.choice(read), draw).apply() if draw.random() < 0.7 else []
        if not what or draw.random() < 0.3:
            arguments = odd_command(verb, command_of(verb), arguments, draw)
        else:
            arguments = [verb, *arguments]
        arguments = [self.server.url if word == "URL" else word for word in arguments]
        if draw.random() < 0.3:
            arguments.append("--json")
        cache = {"HALFBYTE_CACHE": str(work / "cache"), "TMPDIR": str(work), "HF_ENDPOINT": "http://127.0.0.1:9"}
        cache |= {"HOME": str(work), "XDG_STATE_HOME": str(work), "XDG_DATA_HOME": str(work)}
        stop = ENDLESS_SECONDS if command in ENDLESS else 0
        ended = self.runner.run(arguments, work, seconds=MOST_SECONDS, env=cache, stop=stop)
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
    with Runner(scratch, LIGHT) as runner, odd_server() as server:
        yield Fuzz(scratch, runner, server)


@pytest.mark.parametrize("command", LIGHT_COMMANDS)
def test_odd_commands_and_inputs(command: str, fuzz: Fuzz) -> None:
    for seed in range(8):
        ended, problems = fuzz.one(command, seed)
        assert not problems, shown(ended, problems)


@pytest.mark.slow
@pytest.mark.parametrize("command", SOUND)
def test_many_odd_commands_and_inputs(command: str, tmp_path: Path) -> None:
    with Runner(tmp_path, LIGHT + HEAVY) as runner, odd_server() as server:
        every = Fuzz(tmp_path, runner, server)
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
        with Runner(scratch, LIGHT + HEAVY if heavy else LIGHT) as runner, odd_server() as server:
            fuzz = Fuzz(scratch, runner, server)
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
