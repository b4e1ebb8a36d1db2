"""Suite `tiny`: the six task sets of examples/tiny-glm, asked through the API, checked as its evaluate.py does.

The files lie in the repository, not in the wheel: in a clone they are found, elsewhere `--data` names the folder.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import halfbyte
from halfbyte.disk import read_regular
from halfbyte.errors import DataError, said
from halfbyte.evaluate.running.python_test import passes
from halfbyte.text import json_of

TASKS = ("code", "instruction_following", "long_context", "multilingual", "reasoning", "tool_use")
MAX_TOKENS = 256
"""The longest reference, reasoning included, has 121 tokens."""
_LIMIT_BYTES = 10_000_000
_SEPARATORS = {"comma": ", ", "space": " ", "dash": " - ", "semicolon": "; ", "plus": " + "}
_CASES = {"upper": str.upper, "title": str.capitalize}
_EXPRESSION = re.compile(r"[\w\s+\-*/%().,<>=\[\]:'\"]{1,120}")
_FORBIDDEN = re.compile(r"__|\*\*\s*\d{3}|\.format|import|lambda")


def tasks_folder(data: Path | None) -> Path:
    """Where the task files lie. Raises DataError naming what is missing."""
    clone = Path(halfbyte.__file__).resolve().parents[2] / "examples" / "tiny-glm"
    base = clone if data is None else data
    for folder in (base / "tasks", base):
        if all((folder / f"{name}.jsonl").is_file() for name in TASKS):
            return folder
    raise DataError(
        f"{base}: has no {', '.join(f'tasks/{name}.jsonl' for name in TASKS)}",
        hint=said("{data} FOLDER: a clone's examples/tiny-glm"),
    )


def read_task(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Items of one task file, as a suite's. Raises DataError."""
    path = folder / f"{name}.jsonl"
    for number, line in enumerate(read_regular(path, _LIMIT_BYTES, DataError).splitlines(), 1):
        try:
            row = json_of(line)
            check = row["check"]
            kind = check["type"]
            item = {
                "id": row["id"],
                "messages": row["messages"],
                "checker": f"tiny-{kind}",
                "reference": row["answer"] if kind == "exact" else check,
            }
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path}:{number}: is no item of tiny-glm's") from None
        yield item | ({"tools": row["tools"]} if row.get("tools") else {})


def is_exact(reply: str, answer: str) -> bool:
    return reply == answer.strip()


def is_expression(reply: str, check: dict[str, Any]) -> bool | None:
    """A Python expression over `args` that gives every listed value, tried in a process of its own."""
    if not _EXPRESSION.fullmatch(reply) or _FORBIDDEN.search(reply):
        return None
    lines = [f"f = lambda {check['args']}: {reply}", f"for given, wanted in {check['cases']!r}:"]
    return passes(lines[0], f"{lines[1]}\n    assert f(*given) == wanted")


def is_pick(reply: str, check: dict[str, Any]) -> bool | None:
    """`count` different words of a list, in the asked form, case, first and last line; None for another form."""
    lines = reply.split("\n")
    if check["head"] and lines.pop(0) != check["head"]:
        return None
    if check["tail"] and (not lines or lines.pop() != check["tail"]):
        return None
    words = _words(lines, check["form"])
    if words is None:
        return None
    allowed = {_CASES.get(check["case"], str)(word) for word in check["from"]}
    return len(words) == check["count"] == len(set(words)) and allowed.issuperset(words)


def _words(lines: list[str], form: str) -> list[str] | None:
    if form == "numbered":
        found = [re.fullmatch(rf"{number}\. (\S+)", line) for number, line in enumerate(lines, 1)]
        return None if None in found else [one[1] for one in found if one]
    if form == "bullet":
        return [line[2:] for line in lines] if all(line.startswith("* ") for line in lines) else None
    return lines[0].split(_SEPARATORS[form]) if len(lines) == 1 else None


def is_call(calls: list[tuple[str, dict[str, Any]]], reply: str, check: dict[str, Any]) -> bool | None:
    """One tool call and nothing beside it, with the name and the arguments, compared as text; None for no call."""
    if len(calls) != 1 or reply:
        return None if not calls else False
    name, arguments = calls[0]
    shown = {key: value if isinstance(value, str) else json.dumps(value) for key, value in arguments.items()}
    return name == check["name"] and shown == {key: str(value) for key, value in check["arguments"].items()}
