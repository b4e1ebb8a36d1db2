"""The model card's front matter: licence and base model. YAML of a stranger, so only plain values are used."""

from typing import Any

import yaml

FRONT_LIMIT_BYTES = 100_000


def front_matter(card: bytes) -> dict[str, Any] | None:
    """The mapping between the first two `---` lines; empty if there is none, None if it does not parse."""
    text = card[: FRONT_LIMIT_BYTES * 2].decode("utf-8", "replace").replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return {}
    end = text.find("\n---", 3)
    if end < 0 or end > FRONT_LIMIT_BYTES:
        return None
    try:
        document = yaml.safe_load(text[4:end])
    except Exception:  # PyYAML's constructors let whatever int(), float() and their like raise pass
        return None
    if document is None:
        return {}
    return document if isinstance(document, dict) else None


def licence_of(front: dict[str, Any] | None) -> str | None:
    """`license`, or the name that stands behind `other`; the first of a list."""
    value = (front or {}).get("license")
    if isinstance(value, list):
        value = value[0] if value else None
    if value == "other" and isinstance((front or {}).get("license_name"), str):
        value = (front or {})["license_name"]
    return value if isinstance(value, str) else None
