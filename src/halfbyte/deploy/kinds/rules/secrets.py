"""Secrets in plain text, and what a ConfigMap can hold."""

import re
from collections.abc import Iterator
from typing import Any

from halfbyte.deploy.kinds.rules.places import templates, twice

Document = dict[str, Any]

SECRET_NAME = re.compile(r"(^|_)(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|SECRET_KEY|ACCESS_KEY|CREDENTIALS?)$", re.I)
SECRET_URL = re.compile(r"://[^/\s:@]*:(?!\$\()[^/\s@]+@")
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
LARGEST_BYTES = 1 << 20


def secret(document: Document) -> Iterator[str]:
    for field in ("data", "stringData"):
        if document.get(field):
            keys = ", ".join(sorted(document[field]))
            yield f"{field}: a secret in plain text ({keys}): let the cluster's own way make it"


def variables(document: Document) -> Iterator[str]:
    for template in templates(document):
        for field, container in template.containers:
            for number, variable in enumerate(container.get("env") or ()):
                fault = _in_plain_text(variable["name"], variable.get("value") or "")
                if fault:
                    yield f"{field}.env.{number}: {variable['name']!r} {fault}"


def _in_plain_text(name: str, value: str) -> str | None:
    if value and not value.startswith("$(") and SECRET_NAME.search(name):
        return "is a secret in plain text: use valueFrom.secretKeyRef"
    return "has a password in plain text: use $(NAME) of a secret" if SECRET_URL.search(value) else None


def config_map(document: Document) -> Iterator[str]:
    data, binary = document.get("data") or {}, document.get("binaryData") or {}
    yield from twice("data", (*data, *binary))
    for key in (*data, *binary):
        if not KEY.fullmatch(key):
            yield f"data: {key!r} is no key: letters, digits, '-', '_' and '.'"
    size = sum(len(text.encode()) for text in (*data.values(), *binary.values()))
    if size > LARGEST_BYTES:
        yield f"data: {size} bytes, more than the {LARGEST_BYTES} that fit"
