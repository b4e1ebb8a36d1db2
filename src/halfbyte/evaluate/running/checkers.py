"""Whether an answer is right, by an item's checker. The reasoning before `</think>` is no part of an answer."""

import json
import re
from collections.abc import Callable
from typing import Any

from halfbyte.errors import DataError
from halfbyte.evaluate.running.python_test import passes
from halfbyte.text import json_of

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
_LETTER = re.compile(
    r"(?:answer|정답|답)\s*(?:is|:|은|는)?\s*[*(\[]*\s*([A-Z])\b|\\boxed\{\s*([A-Z])\s*\}", re.IGNORECASE
)
_ALONE = re.compile(r"\b([A-Z])\b")
_REFUSAL = re.compile(
    r"(?:i(?:'|’)?m |i am )?(?:very |so )?sorry\b|i (?:can(?:'|’|no)t|won(?:'|’)t|must decline)|"
    r"i am (?:not able|unable) to|as an ai\b|죄송|도와드릴 수 없|답변할 수 없",
    re.IGNORECASE,
)
_CODE = re.compile(r"```(?:[A-Za-z0-9_+-]*)\n(.*?)```", re.DOTALL)


def answer_of(text: str) -> str:
    """What follows the reasoning."""
    return text.rpartition("</think>")[2].strip()


def is_right(checker: str, text: str, reference: Any) -> bool:
    """Whether a completion satisfies the reference."""
    return checked(checker, text, reference) is True


def checked(checker: str, text: str, reference: Any) -> bool | None:
    """Right or wrong; None, which counts as wrong, where nothing in the text could be read as an answer."""
    answer = answer_of(text)
    return CHECKERS[checker](answer, reference) if answer else None


def refuses(text: str) -> bool:
    """Whether an answer begins as refusals do, in English or Korean. A guess by words: it says how rates move."""
    return _REFUSAL.match(answer_of(text)) is not None


def check_reference(item: dict[str, Any], where: str) -> None:
    """Raise DataError for a reference that its checker cannot use."""
    checker, reference = item["checker"], item["reference"]
    try:
        if checker == "regex":
            re.compile(reference)
        elif checker == "numeric":
            _number(reference)
        elif checker == "json-schema":
            _schema(reference)
    except (re.error, TypeError, ValueError) as error:
        raise DataError(f"{where}: reference is none for checker {checker}: {str(error)[:120]}") from None


def _exact(answer: str, reference: Any) -> bool:
    return answer == str(reference).strip()


def _choice(answer: str, reference: Any) -> bool | None:
    """The letter that is named as the answer, the last such; else the last letter that stands alone."""
    named = [first or second for first, second in _LETTER.findall(answer)] or _ALONE.findall(answer)
    return named[-1].upper() == str(reference).strip().upper() if named else None


def _regex(answer: str, reference: Any) -> bool:
    return re.search(reference, answer) is not None


def _numeric(answer: str, reference: Any) -> bool | None:
    """The last number. Equal within a millionth of the reference."""
    found = _NUMBER.findall(answer)
    if not found:
        return None
    value, wanted = _number(found[-1]), _number(reference)
    return abs(value - wanted) <= 1e-6 * max(1.0, abs(wanted))


def _number(value: Any) -> float:
    return float(str(value).replace(",", ""))


def _json_schema(answer: str, reference: Any) -> bool | None:
    fenced = _CODE.findall(answer)
    try:
        document = json.loads(fenced[-1] if fenced else answer)
    except (ValueError, RecursionError):
        return None
    return bool(_schema(reference).is_valid(document))


def _schema(reference: Any) -> Any:
    """A validator. Raises ValueError for what is no schema."""
    from jsonschema import Draft202012Validator, SchemaError

    schema = json_of(reference) if isinstance(reference, str) else reference
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(error.message) from None
    return Draft202012Validator(schema)


def _python(answer: str, reference: Any) -> bool:
    """The code that the answer gives, then the test."""
    fenced = _CODE.findall(answer)
    return passes(fenced[-1] if fenced else answer, str(reference))


CHECKERS: dict[str, Callable[[str, Any], "bool | None"]] = {
    "exact": _exact,
    "choice": _choice,
    "regex": _regex,
    "numeric": _numeric,
    "json-schema": _json_schema,
    "python": _python,
}
