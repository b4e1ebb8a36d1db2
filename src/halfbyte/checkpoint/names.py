"""What a user may call a checkpoint that is not here: a URL, or a hub's `owner/name[@revision]`."""

import re

REMOTE_SECONDS = 600.0
"""That a server is given for all that is asked of it."""

_HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w.-]{1,100}(?:/[\w.-]{1,100}){0,3}))?")


def is_url(target: str) -> bool:
    return target[:8].lower().startswith(("http://", "https://"))


STORES = ("s3://", "gs://", "az://", "s3a://", "gcs://", "azure://", "abfs://", "abfss://")
"""Schemes of object stores."""


def is_store(target: str) -> bool:
    return target[:8].lower().startswith(STORES)


def is_hub_name(target: str) -> bool:
    return _HUB_NAME.fullmatch(target) is not None


def hub_parts(target: str) -> tuple[str, str] | None:
    """`owner/name` and revision (`main` unless `@` says otherwise) of a hub name; None for anything else."""
    found = _HUB_NAME.fullmatch(target)
    return None if found is None or is_url(target) else (found.group(1), found.group(2) or "main")
