"""Words that came from elsewhere (names of files and tensors, fields of a config, others' messages) made safe to show.

A terminal obeys control characters and a log is read line by line: a name with a line break or an escape sequence in
it could forge a line, colour one, or take one back. Whatever cannot be printed is shown escaped instead.
"""

import json
import re
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Not the line break and the tab, which text of several lines holds rightly."""

_IN_JSON = re.compile(r"[\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What JSON allows in a string, and a terminal or a UTF-8 encoder does not."""


def line(text: object) -> str:
    """One line: every character that is not printable, line breaks too, as its escape (`\\n`, `\\x1b`, `\\u202e`)."""
    text = str(text)
    return text if text.isprintable() else "".join([one if one.isprintable() else _escaped(one) for one in text])


def block(text: str) -> str:
    """Text of any number of lines, without what moves the cursor or turns the writing round."""
    return _CONTROL.sub(lambda found: _escaped(found.group()), text)


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: neither half of a surrogate pair, nor a byte of a name that was no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_text(document: Any, indent: int | None = None) -> str:
    """JSON that any terminal shows and UTF-8 holds; the same document when it is read back."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    return _IN_JSON.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is no UTF-8, as Python carries it
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def json_of(content: str | bytes) -> Any:
    """What a JSON text of others says. Raises ValueError for anything else, nested too deeply included."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
