"""What a user may call a checkpoint that is not here: a URL, or a hub's `owner/name`."""

import re

REMOTE_SECONDS = 600.0
"""That a server is given for all that is asked of it."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_url(target: str) -> bool:
    return target[:8].lower().startswith(("http://", "https://"))


def is_hub_name(target: str) -> bool:
    return _HUB_NAME.fullmatch(target) is not None
