"""References: what a streamed checkpoint answers at some hundred positions, kept for `halfbyte probe`."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from halfbyte import __version__
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.compare.checks import check_context
from halfbyte.compare.lockstep import Streaming
from halfbyte.compare.opening import Opening
from halfbyte.data.documents import load
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.errors import DataError, NonFiniteError
from halfbyte.evidence.reference import REFERENCE_VERSION, ReferenceDocument, ReferenceSequence
from halfbyte.progress import Progress

POSITIONS = 320
FIRST = 16
"""Tokens that a sequence has before the first position: what follows nothing says little."""
TOP = 20


def make_reference(
    folder: str | Path,
    data: Sequence[str],
    progress: Progress,
    *,
    positions: int = POSITIONS,
    device: str | None = None,
    memory_budget: int | None = None,
) -> ReferenceDocument:
    """Stream a checkpoint over some text. Raises HalfbyteError."""
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with Checkpoint.of(folder) as checkpoint, ExitStack() as stack:
        tokenizer = open_tokenizer(checkpoint.folder)
        documents = load(data, tokenizer, max_length=FIRST + positions)
        check_context(documents, tokenizer.context)
        ids = [torch.from_numpy(document.ids) for document in documents.documents][:positions]
        size = checkpoint.bytes
        (model,) = stack.enter_context(Opening(where, memory_budget).models([(checkpoint, None)]))
        spans = chosen(ids, positions)
        model.start([ids[number][:stop] for number, (_, stop) in spans.items()])
        progress.start("streaming", size)
        while model.next_layer < model.layers:
            model.step()
            progress.advance(size // model.layers)
        kept = {place: ids[number][:stop] for place, (number, (_, stop)) in enumerate(spans.items())}
        return reference_of(model, kept, dict(enumerate(spans.values())), where)


def chosen(ids: Sequence[Tensor], positions: int = POSITIONS) -> dict[int, tuple[int, int]]:
    """(first, stop) of the tokens to hold against, by sequence: an equal part of each that is long enough."""
    able = [number for number, one in enumerate(ids) if len(one) > FIRST]
    if not able:
        raise DataError(f"no text of more than {FIRST} tokens to make a reference of", hint="give longer texts")
    found: dict[int, tuple[int, int]] = {}
    left = positions
    for place, number in enumerate(sorted(able, key=lambda number: len(ids[number]))):
        take = min(math.ceil(left / (len(able) - place)), len(ids[number]) - FIRST)
        if take > 0:
            found[number] = (FIRST, FIRST + take)
            left -= take
    return dict(sorted(found.items()))


@torch.no_grad()
def reference_of(
    model: Streaming, ids: dict[int, Tensor], spans: dict[int, tuple[int, int]], device: str
) -> ReferenceDocument:
    """Of a model that has run over its sequences. ids, spans: by the model's number of the sequence."""
    sequences = []
    for number, (first, stop) in spans.items():
        own = ids[number][:stop]
        values = model.logits(number, first - 1, stop - 1).double().log_softmax(-1)
        if not bool(torch.isfinite(values).all()):
            raise NonFiniteError("logits that are not finite", hint="the checkpoint is damaged or overflows")
        logprobs = values.gather(1, own[first:stop, None].to(values.device)).squeeze(1)
        top = values.topk(min(TOP, values.shape[1]))
        sequences.append(
            ReferenceSequence(
                ids=[int(one) for one in own],
                first=first,
                logprobs=[round(float(one), 6) for one in logprobs],
                top_ids=[[int(one) for one in row] for row in top.indices],
                top_logprobs=[[round(float(one), 6) for one in row] for row in top.values],
            )
        )
    return ReferenceDocument(
        reference_version=REFERENCE_VERSION,
        model_type=str(model.config.model_type),
        vocab_size=model.vocab_size,
        computed=f"streamed on {device}, activations in 16 bits or more",
        positions=sum(len(one.logprobs) for one in sequences),
        sequences=sequences,
        halfbyte=__version__,
    )
