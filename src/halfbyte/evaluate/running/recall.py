"""Suite `long-recall`: facts hidden in long made-up text, by length, depth, number of facts, in Korean and English.

Everything follows from the length and a number: the same items on every machine. Lengths are tokens as a tokenizer of
the usual size cuts them, from characters (4 a token in English, 1.6 in Korean): an engine's own count stands in the
log. The suite of each length is one of its own, so a verdict says at which length it holds.
"""

import random
from collections.abc import Iterator
from typing import Any

from halfbyte.data.hidden_facts import LANGUAGES, Language
from halfbyte.errors import UsageError, said

LENGTHS = "8k,16k,32k,64k,128k,256k,512k,1M"
DEPTHS = (0.05, 0.25, 0.5, 0.75, 0.95)
NEEDLES = (1, 4)
PROBES = 2
"""Of each length, language, depth and number of facts."""
MAX_TOKENS = 4096
_LETTERS_PER_TOKEN = {"en": 4.0, "ko": 1.6}
_SEVERAL = {
    "en": "What are the access codes of {names}? Give every one.",
    "ko": "{names}의 출입 번호는 각각 무엇인가? 모두 답하라.",
}
_UNITS = {"k": 1024, "m": 1024 * 1024}


def lengths_from(text: str) -> list[tuple[str, int]]:
    """`8k,1M` -> (as written, tokens). Raises UsageError."""
    found: dict[str, int] = {}
    for word in text.split(","):
        name = word.strip()
        unit = _UNITS.get(name[-1:].lower(), 1)
        digits = name[:-1] if unit > 1 else name
        if not digits.isdecimal() or not 64 <= int(digits) * unit <= 4 * _UNITS["m"]:
            raise UsageError(said("{lengths} {text}: {word!r} is no length, like 8k or 1M", text=text[:80], word=name))
        found[name] = int(digits) * unit
    return sorted(found.items(), key=lambda pair: pair[1])


def recall_items(tokens: int) -> Iterator[dict[str, Any]]:
    """Items of one length."""
    for probe in range(PROBES):
        for depth in DEPTHS:
            for needles in NEEDLES:
                for language in LANGUAGES:
                    yield _item(language, tokens, depth, needles, probe)


def _item(language: Language, tokens: int, depth: float, needles: int, probe: int) -> dict[str, Any]:
    """One question. depth: where the fact that is asked for stands; of several, the others lie anywhere."""
    name = f"{language.name}-{tokens}-{round(100 * depth)}-{needles}-{probe}"
    chance = random.Random(name)
    pairs = [f"{adjective} {noun}" for adjective in language.adjectives for noun in language.nouns]
    people = chance.sample(pairs, needles)
    codes = [str(code) for code in chance.sample(range(10_000, 100_000), needles)]
    places = [depth, *(chance.random() for _ in people[1:])]
    told = [language.fact.format(name=person, code=code) for person, code in zip(people, codes, strict=True)]
    facts = sorted(zip(places, told, strict=True))
    letters = round(tokens * _LETTERS_PER_TOKEN[language.name])
    if needles == 1:
        question = language.question.format(name=people[0])
    else:
        question = "\n\n" + _SEVERAL[language.name].format(names=", ".join(people))
    text, done = [], 0.0
    room = max(letters - len(question) - sum(len(fact) for _, fact in facts), 0)
    for place, fact in facts:
        text += [_filler(language, round((place - done) * room), chance), fact]
        done = place
    text += [_filler(language, round((1 - done) * room), chance), question]
    wanted = "".join(rf"(?=.*(?<!\d){code}(?!\d))" for code in codes)
    return {"id": name, "prompt": "".join(text), "reference": f"(?s){wanted}", "checker": "regex"}


def _filler(language: Language, letters: int, chance: random.Random) -> str:
    pieces, length = [], 0
    while length < letters:
        pieces.append(chance.choice(language.sentences).format(noun=chance.choice(language.nouns)) + "\n")
        length += len(pieces[-1])
    return "".join(pieces)
