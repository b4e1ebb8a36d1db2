"""Whether two checkpoints can be compared at all: one architecture, one vocabulary, one tokenizer."""

from collections.abc import Callable

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.documents import Documents
from halfbyte.data.tokenizer import Tokenizer
from halfbyte.errors import CheckpointError, DataError, UsageError, said
from halfbyte.models import text_config_of

SAME = ("model_type", "num_hidden_layers", "hidden_size", "vocab_size")


def check_comparable(base: Checkpoint, candidate: Checkpoint) -> None:
    """Raise CheckpointError naming the first config key in which the two differ."""
    for key in SAME:
        one, other = (text_config_of(opened.config).get(key) for opened in (base, candidate))
        if one != other:
            raise CheckpointError(
                f"cannot compare: {key} is {one!r} in {base.folder} and {other!r} in {candidate.folder}",
                hint="a candidate is the baseline in another format; both must be the same model",
            )


def check_tokenizers(base: Tokenizer, candidate: Tokenizer, load: Callable[[Tokenizer], Documents]) -> None:
    """Raise CheckpointError if the two tokenize the data differently.

    load: reads the data with a given tokenizer; asked only if the vocabulary files differ and both folders have them.
    """
    if None in (base.fingerprint, candidate.fingerprint) or base.fingerprint == candidate.fingerprint:
        return
    try:
        same = load(base).sha256 == load(candidate).sha256
    except DataError as error:  # what one tokenizer takes, the other refuses
        same, reason = False, f": {error.message}"
    else:
        reason = ""
    if not same:
        raise CheckpointError(
            f"cannot compare: the tokenizers of {base.folder} and {candidate.folder} differ on this data{reason}",
            hint="copy the baseline's tokenizer files, if the candidate was really made from it",
        )


def check_context(documents: Documents, context: object) -> None:
    """Raise UsageError for a document longer than the model's context, if the config states one."""
    if type(context) is not int:
        return
    for document in documents.documents:
        if len(document.ids) > context:
            raise UsageError(
                f"{document.source}:{document.row}: {len(document.ids)} tokens, the model takes {context}",
                hint=said("{max_length} {context} cuts documents off there", context=context),
            )
