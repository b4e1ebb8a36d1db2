"""Every error a user can cause or meet, one family.

An error says what is wrong, the value seen, the value wanted and where; `hint` says what to do next.
The command line prints it without a traceback and exits with `exit_code`. Anything outside this family that reaches
the user is a bug of ours.

An option is named by its Python name, as data: `said("{probes} {value}: wanted at least 1", value=0)`. Whoever shows
the error spells it in the user's terms; the command line writes `--probes`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Self


@dataclass(frozen=True)
class Said:
    """Words that name options. template: with a field for each value, and for each option by its name.

    renamed: what some options are called where the user gave them.
    """

    template: str
    values: Mapping[str, object]
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> tuple[str, ...]:
        """Those named, in order."""
        fields = [name for _, name, _, _ in Formatter().parse(self.template) if name]
        return tuple(self.renamed.get(name, name) for name in fields if name not in self.values)

    def spelled(self, spell: Callable[[str], str]) -> str:
        """The words. spell: how an option's name is shown."""
        fields = {name for _, name, _, _ in Formatter().parse(self.template) if name}
        options = {name: spell(self.renamed.get(name, name)) for name in fields - self.values.keys()}
        return self.template.format_map({**options, **self.values})

    def __str__(self) -> str:
        return self.spelled(str)


def said(template: str, /, **values: object) -> Said:
    """Words for an error that names options; fields of the template that are no values are options."""
    return Said(template, values)


class HalfbyteError(Exception):
    """Base of the family. `kind` is the stable name that `--json` prints. option: the first one that is at fault."""

    kind = "error"
    exit_code = 1

    def __init__(self, message: str | Said, *, hint: str | Said | None = None) -> None:
        super().__init__(str(message))
        self._message, self._hint = message, hint

    @property
    def message(self) -> str:
        return str(self._message)

    @property
    def hint(self) -> str | None:
        return None if self._hint is None else str(self._hint)

    @property
    def option(self) -> str | None:
        named = self._message.options if isinstance(self._message, Said) else ()
        return named[0] if named else None

    def spelled(self, spell: Callable[[str], str]) -> tuple[str, str | None]:
        """Message and hint. spell: how an option's name is shown."""
        message, hint = (one.spelled(spell) if isinstance(one, Said) else one for one in (self._message, self._hint))
        return str(message), hint

    def calling(self, names: Mapping[str, str]) -> Self:
        """The same error, where options have other names."""
        message, hint = (
            replace(one, renamed={**one.renamed, **names}) if isinstance(one, Said) else one
            for one in (self._message, self._hint)
        )
        return type(self)(message or "", hint=hint)


@contextmanager
def options_called(**names: str) -> Iterator[None]:
    """Errors from inside name their options as the caller's user knows them: `max_length="calibration_length"`."""
    try:
        yield
    except HalfbyteError as error:
        raise error.calling(names) from None


class UsageError(HalfbyteError):
    """An option or argument that cannot be right, whatever the checkpoint holds."""

    kind = "usage"
    exit_code = 2


class CheckpointError(HalfbyteError):
    """A checkpoint that is damaged, incomplete or contradicts itself: headers, index, shards, config."""

    kind = "bad-checkpoint"


class HeaderError(CheckpointError):
    """A shard whose header cannot be true: its length, its JSON, or what it says of the tensors.

    About the file's own bytes, never about the way to them: who judges a checkpoint reports it as a finding.
    """


class UnknownTensorError(CheckpointError):
    """A tensor whose role the model family does not explain.

    contradicts: what of the config the name would fit but for a number (`layers`, `experts`, `indexer`), else `family`.
    """

    kind = "unknown-tensor"

    def __init__(self, message: str, *, hint: str | None = None, contradicts: str = "family") -> None:
        super().__init__(message, hint=hint)
        self.contradicts = contradicts


class UndecidableError(HalfbyteError):
    """Work that could not decide what it is for, whatever its outcome."""

    kind = "undecidable"
    exit_code = 3


class UnsupportedError(HalfbyteError):
    """Sound input of a kind that Halfbyte does not handle: model family, dtype, quantized source."""

    kind = "unsupported"


class NonFiniteError(HalfbyteError):
    """NaN or Inf where only finite numbers can be encoded."""

    kind = "non-finite"


class RecipeError(HalfbyteError):
    """A recipe that is malformed, or that the engines could not load."""

    kind = "bad-recipe"


class InputScaleError(HalfbyteError):
    """Calibrated activation scales that are missing, malformed or out of range."""

    kind = "bad-input-scale"


class OutputError(HalfbyteError):
    """The destination cannot take the output: not empty, not writable, no space, another unfinished run."""

    kind = "bad-output"


class DataError(HalfbyteError):
    """Texts to calibrate or compare with that are missing, malformed or do not fit the model's vocabulary."""

    kind = "bad-data"
