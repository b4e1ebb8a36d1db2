"""API keys: `hb-<prefix>-<secret>`. The secret is 32 random bytes, shown once; what is kept is its SHA-256.

A secret of 256 bits needs neither salt nor a slow hash; a salt would forbid the look-up by hash.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass

SHAPE = re.compile(r"hb-([0-9a-z]{8})-([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class NewKey:
    """text: what the tenant gets, once. prefix: what may be shown and logged. sha256: what is stored, in hex."""

    text: str
    prefix: str
    sha256: str


def new_key() -> NewKey:
    prefix = secrets.token_hex(4)
    text = f"hb-{prefix}-{secrets.token_urlsafe(32)}"
    return NewKey(text, prefix, hash_of(text))


def hash_of(text: str) -> str:
    """What a key is looked up by."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def redacted(text: str) -> str:
    """A text with the secrets of keys taken out, for logs and errors."""
    return SHAPE.sub(lambda found: f"hb-{found[1]}-...", text)
