"""Every error a user can cause or meet, one family.

An error says what is wrong, the value seen, the value wanted and where; `hint` says what to do next.
The command line prints it without a traceback and exits with `exit_code`. Anything outside this family that reaches
the user is a bug of ours.
"""


class HalfbyteError(Exception):
    """Base of the family. `kind` is the stable name that `--json` prints."""

    kind = "error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


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
