"""Tenants and their keys."""

from typing import NamedTuple

from halfbyte.serve.ledger.script import Script
from halfbyte.serve.tenant import Limits


class Key(NamedTuple):
    """A key that is known. expires: None for never."""

    tenant: str
    prefix: str
    expires: float | None
    limits: Limits


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
        "SELECT k.tenant, k.prefix, k.expires, t.limits FROM keys k JOIN tenants t ON t.name = k.tenant "
        "WHERE k.sha256 = :sha256",
        {"sha256": sha256},
    )
    if not rows:
        return None
    tenant, prefix, expires, limits = rows[0]
    return Key(tenant, prefix, expires, Limits.model_validate_json(limits))


def tenants(name: str | None = None) -> Script[list[tuple[str, Limits, list[str]]]]:
    """Name, limits and prefixes of live keys, by name."""
    chosen = "" if name is None else "WHERE name = :name "
    rows = yield f"SELECT name, limits FROM tenants {chosen}ORDER BY name", {} if name is None else {"name": name}
    found = []
    for tenant, limits in rows:
        keys = yield (
            "SELECT prefix FROM keys WHERE tenant = :tenant ORDER BY created DESC",
            {"tenant": tenant},
        )
        found.append((tenant, Limits.model_validate_json(limits), [prefix for (prefix,) in keys]))
    return found
