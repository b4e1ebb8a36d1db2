"""Recall at length: a fact in a long context, asked for at its end, the answer scored without generating anything.

A probe is filler with one fact that is asked for and a few others of its kind, in Korean or English, of exactly the
wanted number of tokens: a user's question under the chat template, or running text where there is none. The answer's
tokens are given one after the other (teacher-forced); each model is asked how
likely it held them. Facts, places and filler follow from the seed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from halfbyte.compare.options import CompareOptions
from halfbyte.compare.tokens import TokenMeasures
from halfbyte.data.document import Document
from halfbyte.data.hidden_facts import LANGUAGES, Language
from halfbyte.data.tokenizer import Tokenizer
from halfbyte.errors import UsageError, said
from halfbyte.numbers.clustered import Estimate, clustered_mean
from halfbyte.numbers.share import share

DISTRACTORS = 3

Ids = npt.NDArray[np.int64]


SIDES = ("base", "candidate")


@dataclass(frozen=True)
class Probe:
    """ids: int64 [length]. answer: number of tokens at the end that are scored. depth: where the fact that is asked for
    stands, from 0 (first) to 1 (last)."""

    ids: Ids
    answer: int
    length: int
    language: str
    depth: float

    @property
    def span(self) -> slice:
        """Positions whose predictions are the answer."""
        return slice(len(self.ids) - 1 - self.answer, len(self.ids) - 1)

    @property
    def document(self) -> Document:
        return Document(self.ids, {"language": self.language}, "recall", 1)


def parse_lengths(text: str) -> list[int]:
    """`1k,4k,16384` -> token counts, k = 1024. Raises UsageError."""
    lengths = []
    for word in text.split(","):
        number = word.strip().lower()
        factor = 1024 if number.endswith("k") else 1
        number = number.removesuffix("k")
        if not number.isdecimal() or not 0 < int(number) <= 10**7:
            raise UsageError(
                said("{recall} {text}: {word!r} is no length", text=text, word=word.strip()),
                hint="write lengths like 1k,4k,16k",
            )
        lengths.append(int(number) * factor)
    return sorted(set(lengths))


def build_probes(
    lengths: Sequence[int],
    tokenizer: Tokenizer,
    filler: Sequence[Document],
    *,
    context: object,
    probes: int = CompareOptions.probes,
    seed: int = 0,
) -> list[Probe]:
    """Probes of every length and language. filler: documents to hide the facts in; made-up sentences if there are none.

    context: tokens the model takes, if its config says. Raises UsageError for a length beyond it, or too short.
    """
    for length in lengths:
        if type(context) is int and length > context:
            raise UsageError(
                said("{recall} {length}: the model takes {context} tokens", length=length, context=context)
            )
    found = []
    for language in LANGUAGES:
        for length in lengths:
            for number in range(probes):
                random = np.random.default_rng([seed, length, number, LANGUAGES.index(language)])
                found.append(_probe(language, length, (number + 0.5) / probes, tokenizer, filler, random))
    return found


def _probe(
    language: Language,
    length: int,
    depth: float,
    tokenizer: Tokenizer,
    filler: Sequence[Document],
    random: np.random.Generator,
) -> Probe:
    """depth: where the fact that is asked for stands, from 0 (first) to 1 (last)."""
    pairs = random.permutation(len(language.adjectives) * len(language.nouns))[: 1 + DISTRACTORS]
    names = [
        f"{language.adjectives[p // len(language.nouns)]} {language.nouns[p % len(language.nouns)]}" for p in pairs
    ]
    codes = random.permutation(np.arange(10_000, 100_000))[: 1 + DISTRACTORS]
    facts = [
        tokenizer.encode(language.fact.format(name=name, code=code)) for name, code in zip(names, codes, strict=True)
    ]
    before, question, answer = _framing(language, names[0], str(codes[0]), tokenizer)
    fixed = len(before) + sum(map(len, facts)) + len(question) + len(answer)
    room = length - fixed
    if room < DISTRACTORS + 2:
        raise UsageError(
            said(
                "{recall} {length}: too short, the facts and the question alone take {fixed} tokens",
                length=length,
                fixed=fixed,
            )
        )
    ids = _filler(language, room, tokenizer, filler, random)
    places = [round(depth * room), *random.integers(0, room, DISTRACTORS).tolist()]
    pieces, done = list(before), 0
    for place, fact in sorted(zip(places, facts, strict=True), key=lambda pair: pair[0]):
        pieces += [*ids[done:place], *fact]
        done = place
    pieces += [*ids[done:], *question, *answer]
    return Probe(np.array(pieces, np.int64), len(answer), length, language.name, depth)


def _framing(language: Language, name: str, code: str, tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int]]:
    """Token ids of what comes before the context, of the question after it, and of the answer."""
    frame = tokenizer.chat_frame
    if frame is not None:
        before, after = frame
        return before, tokenizer.encode(language.question.format(name=name)) + after, tokenizer.encode(code)
    asked = language.plain_question.format(name=name)
    alone, whole = tokenizer.encode(asked), tokenizer.encode(f"{asked} {code}")
    shared = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), len(alone))
    return [], whole[:shared], whole[shared:]


def _filler(
    language: Language, tokens: int, tokenizer: Tokenizer, documents: Sequence[Document], random: np.random.Generator
) -> list[int]:
    """Exactly `tokens` tokens of text."""
    ids: list[int] = []
    pieces = _documents(documents, random) if documents else _sentences(language, tokenizer, random)
    while len(ids) < tokens:
        ids += next(pieces)
    return ids[:tokens]


def _documents(documents: Sequence[Document], random: np.random.Generator) -> Iterator[list[int]]:
    """The documents in random order, over and over."""
    for _ in count():
        for i in random.permutation(len(documents)):
            yield documents[i].ids.tolist()


def _sentences(language: Language, tokenizer: Tokenizer, random: np.random.Generator) -> Iterator[list[int]]:
    for _ in count():
        sentence = language.sentences[random.integers(len(language.sentences))]
        noun = language.nouns[random.integers(len(language.nouns))]
        yield tokenizer.encode(sentence.format(noun=noun) + "\n")


def recall_rows(probes: Sequence[Probe], measures: Sequence[TokenMeasures]) -> list[dict[str, Any]]:
    """One row for each length and language.

    log_probability: of the whole answer in nats, mean over probes. rank: median over probes of the worst rank among
    the answer's tokens. recalled: share of probes in which every token of the answer is the likeliest. depths: the
    same by where the fact stands.
    """
    groups: dict[tuple[int, str], list[TokenMeasures]] = {}
    depths: dict[tuple[int, str], list[float]] = {}
    for probe, one in zip(probes, measures, strict=True):
        groups.setdefault((probe.length, probe.language), []).append(one)
        depths.setdefault((probe.length, probe.language), []).append(probe.depth)
    rows = []
    for (length, language), members in sorted(groups.items()):
        row: dict[str, Any] = {"length": length, "language": language, "probes": len(members)}
        sums = {side: np.array([-getattr(one, f"nll_{side}").sum() for one in members]) for side in SIDES}
        ranks = {side: np.array([getattr(one, f"rank_{side}").max() for one in members]) for side in SIDES}
        row["log_probability"] = {side: _mean(sums[side]).clipped(-np.inf, 0).as_json() for side in SIDES}
        row["log_probability"]["difference"] = _mean(sums["candidate"] - sums["base"]).as_json()
        row["rank"] = {side: float(np.median(ranks[side])) for side in SIDES}
        row["recalled"] = {side: share(int((ranks[side] == 1).sum()), len(members)).as_json() for side in SIDES}
        row["depths"] = _by_depth(depths[length, language], sums, ranks)
        rows.append(row)
    return rows


def _by_depth(
    depths: Sequence[float], sums: dict[str, npt.NDArray[np.float64]], ranks: dict[str, npt.NDArray[np.float64]]
) -> list[dict[str, Any]]:
    """depths: of each probe, in order. Without intervals: mostly one probe stands at each."""
    at = np.array(depths)
    difference = sums["candidate"] - sums["base"]
    return [
        {
            "depth": depth,
            "probes": int((at == depth).sum()),
            "difference": float(difference[at == depth].mean()),
            "recalled": {side: float((ranks[side][at == depth] == 1).mean()) for side in SIDES},
        }
        for depth in sorted(set(depths))
    ]


def _mean(values: npt.NDArray[np.float64]) -> Estimate:
    """Mean over probes with its interval; each probe counts once."""
    estimate = clustered_mean([values[i : i + 1] for i in range(len(values))])
    assert estimate is not None
    return estimate
