"""The flags that each engine's server takes, as recorded by tests/golden/record_flags.py from a released package."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from halfbyte.engines.engine import EngineName


@dataclass(frozen=True)
class RecordedFlags:
    """version: of the package. made_from: its argument parser, or its source where it cannot be imported."""

    version: str
    made_from: str
    flags: frozenset[str]

    def unknown(self, command: Sequence[str]) -> list[str]:
        """Flags of a command that the engine would not take. Argparse's abbreviations do not count as known."""
        return [word for word in command if word.startswith("--") and word.partition("=")[0] not in self.flags]


@cache
def recorded_flags(engine: EngineName) -> RecordedFlags:
    text = (resources.files("halfbyte.engines") / "flags" / f"{engine}.json").read_text("utf-8")
    found = json.loads(text)
    return RecordedFlags(found["version"], found["made_from"], frozenset(found["flags"]))
