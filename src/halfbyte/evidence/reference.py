"""`ref.json`, a reference: what a checkpoint answers at some hundred positions, to hold a running engine against."""

from typing import ClassVar

from halfbyte.errors import UsageError
from halfbyte.evidence.record import JsonDocument, Number, Record

REFERENCE_VERSION = 1


class ReferenceSequence(Record):
    """ids: of the text. first: index of the first token that is held against. For each from there on: its
    log-probability in nats after all before it, and the likeliest tokens there with theirs, the likeliest first."""

    ids: list[int]
    first: int
    logprobs: list[Number]
    top_ids: list[list[int]]
    top_logprobs: list[list[Number]]


class ReferenceDocument(JsonDocument):
    """computed: with which numbers, on what. positions: in all sequences together."""

    what: ClassVar = "a reference"
    version: ClassVar = ("reference_version", REFERENCE_VERSION)
    hint: ClassVar = "halfbyte probe --make-reference writes it"
    error: ClassVar = UsageError
    ascii: ClassVar = True

    reference_version: int
    model_type: str
    vocab_size: int
    computed: str
    positions: int
    sequences: list[ReferenceSequence]
    halfbyte: str
