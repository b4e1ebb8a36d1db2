"""Tenants and their keys."""

from typing import NamedTuple

from halfbyte.serve.ledger.script import Script
from halfbyte.serve.tenant import NOBODY, Limits


class Key(NamedTuple):
    """A key that is known. expires: None for never."""

    tenant: str
    prefix: str
    expires: float | None
    limits: Limits
    sha256: str = ""


def add_tenant(name: str, limits: Limits, now: float) -> Script[bool]:
    """False if the name is taken."""
    rows = yield (
        "INSERT INTO tenants (name, limits, created) VALUES (:name, :limits, :now) ON CONFLICT DO NOTHING "
        "RETURNING name",
        {"name": name, "limits": limits.model_dump_json(), "now": now},
    )
    return bool(rows)


def add_key(tenant: str, sha256: str, prefix: str, now: float, expires: float | None) -> Script[None]:
    """A further key. Of older ones the latest stays valid, those before it end: two live at a time."""
    yield (
        "DELETE FROM keys WHERE tenant = :tenant AND sha256 NOT IN "
        "(SELECT sha256 FROM keys WHERE tenant = :tenant ORDER BY created DESC, sha256 LIMIT 1)",
        {"tenant": tenant},
    )
    yield (
        "INSERT INTO keys (sha256, tenant, prefix, created, expires) "
        "VALUES (:sha256, :tenant, :prefix, :now, :expires)",
        {"sha256": sha256, "tenant": tenant, "prefix": prefix, "now": now, "expires": expires},
    )


def end_keys(tenant: str, keep: str | None = None) -> Script[int]:
    """End all keys of a tenant but `keep`. Returns how many."""
    rows = yield (
        "DELETE FROM keys WHERE tenant = :tenant AND sha256 <> :keep RETURNING sha256",
        {"tenant": tenant, "keep": keep or ""},
    )
    return len(rows)


def find_key(sha256: str) -> Script[Key | None]:
    rows = yield (
        "SELECT k.tenant, k.prefix, k.expires, t.limits, k.sha256 FROM keys k JOIN tenants t ON t.name = k.tenant "
        "WHERE k.sha256 = :sha256",
        {"sha256": sha256},
    )
    if not rows:
        return None
    tenant, prefix, expires, limits, stored = rows[0]
    return Key(tenant, prefix, expires, Limits.model_validate_json(limits), stored)


class Tenant(NamedTuple):
    """keys: (prefix, expires) of those that are kept, the latest first."""

    name: str
    limits: Limits
    keys: list[tuple[str, float | None]]


def tenants(name: str | None = None) -> Script[list[Tenant]]:
    """All that users added, or one, by name."""
    rows = yield (
        "SELECT name, limits FROM tenants WHERE name <> :nobody AND (:any = 1 OR name = :name) ORDER BY name",
        {"nobody": NOBODY, "any": int(name is None), "name": name or ""},
    )
    found = []
    for tenant, limits in rows:
        keys = yield (
            "SELECT prefix, expires FROM keys WHERE tenant = :tenant ORDER BY created DESC",
            {"tenant": tenant},
        )
        found.append(Tenant(tenant, Limits.model_validate_json(limits), [(key[0], key[1]) for key in keys]))
    return found


def any_tenant() -> Script[bool]:
    """Whether users added any."""
    rows = yield "SELECT 1 FROM tenants WHERE name <> :nobody LIMIT 1", {"nobody": NOBODY}
    return bool(rows)


def latest_expiry(tenant: str) -> Script[float | None]:
    """Of the newest key; None for never, or where there is none."""
    rows = yield (
        "SELECT expires FROM keys WHERE tenant = :tenant ORDER BY created DESC, sha256 LIMIT 1",
        {"tenant": tenant},
    )
    return rows[0][0] if rows else None


def admit_nobody(now: float) -> Script[None]:
    """The tenant of requests without a key, unlimited: for a door on loopback without tenants."""
    yield from add_tenant(NOBODY, Limits(), now)
