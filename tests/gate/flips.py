"""Random damage: one byte of a header, the index or a config changed, the gate asked, the byte put back.

.venv/bin/python -m tests.gate.flips 10000
"""

import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from halfbyte.errors import HalfbyteError
from halfbyte.gate.judge import gate

FILES = ("model-00001-of-00001.safetensors", "model.safetensors.index.json", "config.json", "hf_quant_config.json")
SYNTAX = b'{}[]",:0123456789.-e\\nulltruefalse/'
"""Half of the changes are to a character that JSON knows, so that more of them parse and reach deeper."""

MOST_SECONDS = 5.0


@dataclass
class Outcome:
    """decisions: by verdict, and `error` for one clear error. slowest: processor seconds of one gate."""

    decisions: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0


def fuzz(folder: Path, count: int, seed: int) -> Outcome:
    """Damage `folder` (which is changed and restored) `count` times."""
    random, outcome = np.random.default_rng(seed), Outcome()
    for _ in range(count):
        path = folder / FILES[random.integers(len(FILES))]
        reach = _header_bytes(path) if path.suffix == ".safetensors" else path.stat().st_size
        offset = int(random.integers(min(64, reach) if random.random() < 0.05 else reach))
        new = SYNTAX[random.integers(len(SYNTAX))] if random.random() < 0.5 else int(random.integers(256))
        with open(path, "r+b") as file:
            file.seek(offset)
            old = file.read(1)
            file.seek(offset)
            file.write(bytes([new]))
        try:
            _one(folder, f"{path.name} byte {offset}: {old!r} to {bytes([new])!r}", outcome)
        finally:
            with open(path, "r+b") as file:
                file.seek(offset)
                file.write(old)
    return outcome


def _one(folder: Path, what: str, outcome: Outcome) -> None:
    began = time.process_time()
    try:
        decision = gate(folder)
        outcome.decisions[decision.verdict] += 1
        for finding in decision.findings:
            text = f"{finding.found.message}{finding.found.subject}"
            if "please report it" in text or not finding.found.message.isprintable():
                outcome.failures.append(f"{what}: {finding.rule}: {finding.found.message}")
        decision.as_json()
    except HalfbyteError as error:
        outcome.decisions["error"] += 1
        if not error.message.isprintable() or len(error.message) > 2000:
            outcome.failures.append(f"{what}: {error.message[:2000]!r}")
    except Exception as error:
        outcome.failures.append(f"{what}: {type(error).__name__}: {error}")
    seconds = time.process_time() - began
    if seconds > MOST_SECONDS:
        outcome.failures.append(f"{what}: took {seconds:.1f} s")
    outcome.slowest = max(outcome.slowest, seconds)


def _header_bytes(path: Path) -> int:
    with open(path, "rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def main() -> None:
    from halfbyte.quantize.pipeline import quantize

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as work:
        folder = Path(work) / "tiny"
        quantize(Path(__file__).parents[2] / "examples/tiny-glm", folder)
        with_evidence = fuzz(folder, count // 2, seed=1)
        (folder / "halfbyte.json").unlink()
        without = fuzz(folder, count - count // 2, seed=2)
        shutil.rmtree(folder)
    for name, outcome in (("with evidence", with_evidence), ("without", without)):
        print(f"{name}: {dict(outcome.decisions)}, slowest {outcome.slowest:.2f} s, {len(outcome.failures)} failure(s)")
        for failure in outcome.failures[:20]:
            print(f"  {failure}")
    sys.exit(bool(with_evidence.failures or without.failures))


if __name__ == "__main__":
    main()
