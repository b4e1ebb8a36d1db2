"""What `evaluate` can be asked for; every default stands here alone."""

from dataclasses import dataclass
from pathlib import Path

from halfbyte.evaluate.power import DEFAULT_CORRELATION
from halfbyte.evaluate.running.catalogue import SuiteOptions
from halfbyte.evaluate.running.embedded import CONTEXT_TOKENS
from halfbyte.evaluate.running.targets import KEY_ENV


@dataclass(frozen=True)
class EvaluateOptions:
    """candidate, baseline, judge, user: targets. work: folder of the logs, None for a temporary one. margin: points.

    record: checkpoint folder whose evidence gets the verdict; None for the candidate's own, if it is one.
    context_length, gpu_layers, yes: of an engine that is started for the run. Others: `SuiteOptions`.
    """

    suite: str | None = None
    candidate: str | None = None
    baseline: str | None = None
    judge: str | None = None
    user: str | None = None
    work: Path | None = None
    margin: float = 1.0
    epochs: int | None = None
    limit: int | None = None
    correlation: float = DEFAULT_CORRELATION
    discordance: float | None = None
    plan: Path | None = None
    anyway: bool = False
    sequential: bool = False
    key_env: str = KEY_ENV
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    data: Path | None = None
    lengths: str = SuiteOptions.lengths
    sandbox: str = SuiteOptions.sandbox
    context_length: int = CONTEXT_TOKENS
    gpu_layers: int = -1
    yes: bool = False
    record: Path | None = None

    @property
    def suites(self) -> SuiteOptions:
        names = ("limit", "temperature", "top_p", "max_tokens", "epochs", "seed", "data", "lengths", "sandbox")
        return SuiteOptions(**{name: getattr(self, name) for name in names})
