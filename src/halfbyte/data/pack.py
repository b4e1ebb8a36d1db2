"""Packing: many short documents as few sequences of one length."""

from collections.abc import Sequence

import numpy as np

from halfbyte.data.document import Document


def pack_documents(documents: Sequence[Document], length: int, separator: Sequence[int]) -> list[Document]:
    """Join documents, `separator` between them, and cut into `length` tokens; the last may be shorter.

    A sequence keeps the labels that all its documents share, and the place of the first of them.
    """
    ids: list[int] = []
    owner: list[int] = []
    for number, document in enumerate(documents):
        piece = [*separator, *document.ids.tolist()] if number else document.ids.tolist()
        ids += piece
        owner += [number] * len(piece)
    packed = []
    for start in range(0, len(ids), length):
        members = [documents[i] for i in sorted(set(owner[start : start + length]))]
        shared = {
            key: value
            for key, value in members[0].labels.items()
            if all(member.labels.get(key) == value for member in members)
        }
        sequence = np.array(ids[start : start + length], np.int64)
        packed.append(Document(sequence, shared, members[0].source, members[0].row))
    return packed
