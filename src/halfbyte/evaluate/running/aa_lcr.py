"""AA-LCR: 100 questions over sets of long documents, from the user's copy, answers judged by another model."""

import csv
import hashlib
from pathlib import Path
from typing import Any

from halfbyte.disk import read_regular
from halfbyte.errors import DataError

QUESTIONS = "AA-LCR_Dataset.csv"
TEXTS = "extracted_text"
_LIMIT_BYTES = 100_000_000
_PROMPT = """Here are {count} documents.

{documents}

Answer this question from them alone.

{question}"""


def read_questions(data: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Items, clustered by set of documents, and the SHA-256 of the questions and of all texts. Raises DataError."""
    path = data / QUESTIONS
    content = read_regular(path, _LIMIT_BYTES, DataError)
    digest = hashlib.sha256()
    items = []
    try:
        rows = list(csv.DictReader(content.decode("utf-8-sig").splitlines(keepends=True)))
        for row in rows:
            folder = data / TEXTS / row["document_category"] / row["document_set_id"]
            names = [name.strip() for name in row["data_source_filenames"].split(";") if name.strip()]
            texts = [_text(folder, name) for name in names]
            for text in texts:
                digest.update(text.encode())
            items.append(_item(row, texts))
    except (KeyError, AttributeError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: is not AA-LCR's file of questions: {str(error)[:120]}") from None
    return items, {QUESTIONS: hashlib.sha256(content).hexdigest(), TEXTS: digest.hexdigest()}


def _text(folder: Path, name: str) -> str:
    path = folder / name
    if not path.is_file() and path.with_suffix(".txt").is_file():
        path = path.with_suffix(".txt")
    return read_regular(path, _LIMIT_BYTES, DataError).decode("utf-8", "replace")


def _item(row: dict[str, str], texts: list[str]) -> dict[str, Any]:
    documents = "\n\n".join(f"<document {k}>\n{text}\n</document {k}>" for k, text in enumerate(texts, 1))
    prompt = _PROMPT.format(count=len(texts), documents=documents, question=row["question"])
    return {
        "id": row["question_id"],
        "prompt": prompt,
        "question": row["question"],
        "reference": row["answer"],
        "checker": "judge",
        "cluster": f"{row['document_category']}/{row['document_set_id']}",
    }
