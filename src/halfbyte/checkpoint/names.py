"""What a user may call a checkpoint that is not here: a URL, or a hub's `owner/name`."""

import re

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_url(target: str) -> bool:
    return target.startswith(("http://", "https://"))


def is_hub_name(target: str) -> bool:
    return _HUB_NAME.fullmatch(target) is not None
