"""URLs and addresses, as users write them."""

import ipaddress


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def base_of(url: str) -> str:
    """A server's URL without /v1 and the last slash."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
