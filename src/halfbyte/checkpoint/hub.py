"""Where the hub is, and to whom its token may go: addresses compared by their parts, never by how they begin."""

import os

import httpx

HUB = "https://huggingface.co"

_PORTS = {"http": 80, "https": 443}


def hub_address() -> str:
    """`HF_ENDPOINT`, or the hub's own; no slash at the end."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


class Token:
    """`HF_TOKEN`, for the hub alone."""

    def __init__(self) -> None:
        self._token = os.environ.get("HF_TOKEN")
        try:
            self._hub: httpx.URL | None = httpx.URL(hub_address())
        except (httpx.InvalidURL, ValueError):
            self._hub = None

    def headers(self, url: str) -> dict[str, str]:
        """What requests below that address carry."""
        try:
            told = bool(self._token) and self._is_hub(httpx.URL(url))
        except (httpx.InvalidURL, ValueError):
            told = False
        return {"authorization": f"Bearer {self._token}"} if told else {}

    def check(self, request: httpx.Request) -> None:
        """Take the token from a request that leaves the hub: a redirect may lead anywhere."""
        carried = request.headers.get("authorization") == f"Bearer {self._token}"
        if carried and not self._is_hub(request.url):
            del request.headers["authorization"]

    def _is_hub(self, url: httpx.URL) -> bool:
        """Same scheme, host (in any case, with or without the root's dot), port, beginning of the path; no userinfo."""
        hub = self._hub
        if hub is None or url.userinfo or hub.userinfo:
            return False
        below = hub.path.rstrip("/") + "/"
        return _origin(url) == _origin(hub) and f"{url.path}/".startswith(below)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host.lower().removesuffix("."), url.port or _PORTS.get(url.scheme)
