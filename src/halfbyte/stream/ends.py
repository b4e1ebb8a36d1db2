"""What lies before the first layer and behind the last: token embeddings, final norm and head."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import linear

from halfbyte.checkpoint.inventory import Entry
from halfbyte.errors import CheckpointError, UnsupportedError, UsageError
from halfbyte.formats.catalogue import QUANTIZED
from halfbyte.formats.storage import WEIGHT
from halfbyte.models.roles import Role
from halfbyte.stream.contents import Contents
from halfbyte.stream.reader import read_now
from halfbyte.stream.skeleton import Skeleton
from halfbyte.stream.weights import decoded

HEAD_PART_BYTES = 64 << 20
"""Of a head that the budget does not hold: read and multiplied at a time, in the compute dtype."""


class Ends:
    """whole_head: keep the head between calls; else its rows are read again for each call."""

    def __init__(self, contents: Contents, skeleton: Skeleton, whole_head: bool) -> None:
        """Raises CheckpointError for a checkpoint without embedding, norm or head."""
        self._contents, self._skeleton, self._whole = contents, skeleton, whole_head
        self._head: Tensor | None = None
        self._cap: float | None = getattr(skeleton.config, "final_logit_softcapping", None)
        outside = contents.outside
        tied = bool(getattr(skeleton.config, "tie_word_embeddings", False))
        self.embedding = _needed(outside.get(Role.EMBEDDING), "model.embed_tokens.weight")
        self.norm = _needed(outside.get(Role.NORM), "model.norm.weight")
        head = outside.get(Role.LM_HEAD) or (self.embedding if tied else None)
        self.head = _needed(head, "lm_head.weight")
        width = int(skeleton.config.hidden_size)
        for entry in (self.embedding, self.norm, self.head):
            if entry.shape[-1:] != (width,):
                raise CheckpointError(
                    f"{entry.name}: shape {list(entry.shape)}, the model's hidden_size is {width}",
                    hint="config.json does not belong to these weights",
                )

    def embed(self, ids: Tensor) -> Tensor:
        """Hidden states of one sequence, int64 [T], before the first layer: only its tokens' rows are read.

        Raises UsageError for a token that the model does not have.
        """
        vocabulary = self.embedding.shape[0]
        if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= vocabulary):
            raise UsageError(
                f"token {int(ids.min())} to {int(ids.max())}, the model has 0 to {vocabulary - 1}",
                hint="tokenize with this model's own tokenizer",
            )
        wanted, place = np.unique(ids.cpu().numpy(), return_inverse=True)
        table = self._rows(self.embedding, wanted)
        return self._skeleton.opened(table[torch.from_numpy(place.reshape(-1)).to(table.device)])

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 [n, V] of hidden states after the last layer, [n, H] or as many streams side by side."""
        self._fill_norm()
        x = self._skeleton.final_norm(self._skeleton.closed(hidden[None]))
        if self._whole or self.head.format in QUANTIZED:
            if self._head is None:
                self._head = self._weight(self.head)
            return self._capped(linear(x, self._head)[0]).float()
        return self._capped(torch.cat([linear(x, part)[0] for _, part in self._head_parts()], dim=-1)).float()

    def _capped(self, logits: Tensor) -> Tensor:
        """Logits as the model gives them: bent towards a bound, where it has one."""
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap

    def openness(self, hidden: Tensor) -> Tensor:
        """float32 [n]: trace of the prediction's Fisher information behind the head, sum p |u|^2 - |sum p u|^2 over the
        head's rows u, each times the slope of the bound that its logit is bent towards. Twice what a small random error
        of the normalised hidden state costs in KL divergence."""
        logits = self.logits(hidden)
        p = logits.softmax(-1)
        slope = torch.ones_like(p) if self._cap is None else 1 - (logits / self._cap).square()
        squares, mean = torch.zeros(len(p), device=p.device), p.new_zeros(len(p), self.head.shape[1])
        for rows, part in self._head_parts():
            squares += (p * slope.square())[:, rows] @ part.float().square().sum(-1)
            mean += (p * slope)[:, rows] @ part.float()
        return (squares - mean.square().sum(-1)).clamp(min=0)

    def _head_parts(self) -> Iterator[tuple[slice, Tensor]]:
        """The head's rows, [rows, H] in the compute dtype: at once where it is kept."""
        vocabulary, width = self.head.shape
        if self._head is not None:
            yield slice(0, vocabulary), self._head
            return
        step = max(1, HEAD_PART_BYTES // (width * self._skeleton.dtype.itemsize))
        for start in range(0, vocabulary, step):
            rows = slice(start, min(start + step, vocabulary))
            yield rows, self._rows(self.head, np.arange(rows.start, rows.stop))

    def _fill_norm(self) -> None:
        if self._skeleton.final_norm.weight.device.type == "meta":
            for entry in (self.norm, *self._contents.mixer):
                self._skeleton.fill(entry, self._weight(entry))
            self._skeleton.check_closed()

    def _weight(self, entry: Entry) -> Tensor:
        raw = read_now(self._contents.checkpoint, entry, self._skeleton.device)
        return decoded(entry, raw, self._skeleton.dtype_of(self._skeleton.target(entry.name)))

    def _rows(self, entry: Entry, numbers: npt.NDArray[np.int64]) -> Tensor:
        """Rows of a plain matrix, by ascending number."""
        if entry.format in QUANTIZED:
            raise UnsupportedError(f"{entry.name}: stored as {entry.format}; rows are read of BF16, F16 and F32 only")
        stored, width = entry.tensors[WEIGHT], entry.shape[1]
        shape = (len(numbers), width)
        rows = Entry(entry.role, entry.format, shape, 0, {WEIGHT: stored.part(0, shape)})
        buffer = torch.empty(rows.tensors[WEIGHT].bytes, dtype=torch.uint8)
        view, row_bytes = buffer.numpy().data, stored.bytes // entry.shape[0]
        starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1).tolist()
        for start, stop in pairwise([*starts, len(numbers)]):
            target = view[start * row_bytes : stop * row_bytes]
            self._contents.checkpoint.read_into(stored, target, int(numbers[start]) * row_bytes)
        raw = {WEIGHT: buffer.to(self._skeleton.device)}
        return decoded(rows, raw, self._skeleton.dtype)


def _needed(entry: Entry | None, name: str) -> Entry:
    if entry is None:
        raise CheckpointError(f"{name}: missing from the checkpoint", hint="complete the download")
    return entry
