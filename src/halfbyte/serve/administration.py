"""What `halfbyte tenants` does: tenants, their keys and limits, in the ledger."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from halfbyte.errors import HalfbyteError, UsageError, said
from halfbyte.serve.keys import NewKey
from halfbyte.serve.ledger.report import standing_of
from halfbyte.serve.ledger.script import Script
from halfbyte.serve.ledger.tenants import add_key, add_tenant, end_keys, latest_expiry, tenants
from halfbyte.serve.tenant import Limits


class TenantError(HalfbyteError):
    """A tenant that is there already, or is not."""

    kind = "tenant"


def expiry_from(text: str | None) -> float | None:
    """The end of a day, UTC's, in seconds since 1970. Raises UsageError."""
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
        return (datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(said("{expires} {text!r}: wanted a day, YYYY-MM-DD", text=text[:40])) from None


def enroll(name: str, limits: Limits, key: NewKey, now: float, expires: float | None) -> Script[None]:
    """A new tenant and its first key. Raises TenantError if there is one of that name."""
    if not (yield from add_tenant(name, limits, now)):
        raise TenantError(f"there is a tenant {name!r} already", hint="tenants rotate gives it a new key")
    yield from add_key(name, key.sha256, key.prefix, now, expires)


@dataclass(frozen=True)
class Rotation:
    """expires: of the new key; None as the last one's. retire: end the old keys at once."""

    expires: float | None = None
    retire: bool = False


def rotate(name: str, key: NewKey, now: float, how: Rotation) -> Script[None]:
    """A new key beside the last one. Raises TenantError, UsageError."""
    yield from _known(name)
    expires = how.expires
    if expires is None:
        expires = yield from latest_expiry(name)
        if expires is not None and expires <= now:
            raise UsageError(f"the last key of {name!r} has expired", hint=said("say until when: {expires} YYYY-MM-DD"))
    yield from add_key(name, key.sha256, key.prefix, now, expires)
    if how.retire:
        yield from end_keys(name, keep=key.sha256)


def revoke(name: str) -> Script[int]:
    """End all keys of a tenant; how many there were. Raises TenantError."""
    yield from _known(name)
    return (yield from end_keys(name))


def shown(name: str | None, now: float) -> Script[list[dict[str, Any]]]:
    """What `show` and `list` print. Raises TenantError if `name` is not known."""
    if name is not None:
        yield from _known(name)
    found = []
    for tenant in (yield from tenants(name)):
        standing = yield from standing_of(tenant.name, now)
        found.append(
            {"tenant": tenant.name, "limits": tenant.limits.model_dump(mode="json")}
            | standing
            | {"keys": [{"prefix": prefix, "expires": _day(expires)} for prefix, expires in tenant.keys]}
        )
    return found


def _day(expires: float | None) -> str | None:
    """The last day on which a key is valid."""
    return None if expires is None else datetime.fromtimestamp(expires - 1, UTC).strftime("%Y-%m-%d")


def _known(name: str) -> Script[None]:
    if not (yield from tenants(name)):
        raise TenantError(f"there is no tenant {name[:80]!r}", hint="tenants list names them")
