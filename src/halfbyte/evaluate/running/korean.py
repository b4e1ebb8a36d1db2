"""Suite `korean`: tiny-glm's Korean tasks, and a user's copy of KMMLU or of questions in its form.

A file is CSV or JSON lines with `question`, `A` to `D` and `answer` (1 to 4, or a letter); its `Category`, else its
name, is the subject by which items cluster.
"""

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from halfbyte.disk import read_regular
from halfbyte.errors import DataError, said
from halfbyte.text import json_of

LETTERS = "ABCD"
_LIMIT_BYTES = 500_000_000
_PROMPT = """다음 문제를 풀고, 마지막 줄에 '정답: '과 보기의 글자(A, B, C, D)를 쓰세요.

{question}
A. {A}
B. {B}
C. {C}
D. {D}"""


def question_files(data: Path) -> list[Path]:
    """Files of questions below a folder; the test parts where files are named by part. Raises DataError."""
    found = sorted([*data.rglob("*.csv"), *data.rglob("*.jsonl")])
    tests = [path for path in found if path.stem.endswith("test")]
    if not found:
        raise DataError(f"{data}: holds no .csv or .jsonl of questions", hint=said("{data}: a copy of KMMLU's data/"))
    return tests or found


def read_questions(data: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Items, and the SHA-256 of each file. Raises DataError naming the line at fault."""
    items: list[dict[str, Any]] = []
    hashes = {}
    for path in question_files(data):
        content = read_regular(path, _LIMIT_BYTES, DataError)
        name = str(path.relative_to(data))
        hashes[name] = hashlib.sha256(content).hexdigest()
        for number, row in enumerate(_rows(content, path), 1):
            items.append(_item(row, f"{name}:{number}", path.stem))
    return items, hashes


def _rows(content: bytes, path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = content.decode("utf-8-sig").splitlines()
        if path.suffix == ".csv":
            yield from csv.DictReader(content.decode("utf-8-sig").splitlines(keepends=True))
        else:
            yield from (json_of(line) for line in lines if line.strip())
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {str(error)[:120]}") from None


def _item(row: Any, where: str, subject: str) -> dict[str, Any]:
    try:
        answer = str(row["answer"]).strip().upper()
        letter = LETTERS[int(answer) - 1] if answer.isdecimal() else answer
        if letter not in set(LETTERS):
            raise ValueError
        prompt = _PROMPT.format(question=row["question"], **{one: row[one] for one in LETTERS})
    except (KeyError, TypeError, ValueError, IndexError):
        raise DataError(f"{where}: wants question, A, B, C, D and answer (1 to 4, or a letter)") from None
    cluster = str(row.get("Category") or subject)
    return {"id": where, "prompt": prompt, "reference": letter, "checker": "choice", "cluster": cluster}
