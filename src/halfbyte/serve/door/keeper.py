"""Who asks: keys looked up in the ledger, kept for half a second, so that a change holds within one."""

import hmac
import time

from halfbyte.serve.door.refusal import Refusal
from halfbyte.serve.keys import hash_of
from halfbyte.serve.ledger.opening import Ledger
from halfbyte.serve.ledger.tenants import Key, any_tenant, find_key
from halfbyte.serve.tenant import NOBODY, Limits

KEPT_S = 0.5
MOST_KEPT = 10_000
MOST_KEY_BYTES = 512


class Keeper:
    """nobody: whether requests without a key may pass while there are no tenants: on loopback only."""

    def __init__(self, ledger: Ledger, nobody: bool) -> None:
        self._ledger, self._nobody = ledger, nobody
        self._kept: dict[str, tuple[float, Key]] = {}
        self._empty_until = 0.0

    async def tenant(self, key: str | None) -> Key:
        """Raises Refusal (401) for a key that is missing, unknown, expired or revoked, LedgerError."""
        if self._nobody and await self._no_tenants():
            return Key(NOBODY, "", None, Limits())
        if not key:
            raise _unauthorized("no API key: send it as `Authorization: Bearer hb-...` or `x-api-key`")
        if len(key) > MOST_KEY_BYTES:
            raise _unauthorized("this API key is not valid")
        found = await self._find(hash_of(key))
        if found is None or (found.expires is not None and found.expires <= time.time()):
            raise _unauthorized("this API key is not valid")
        return found

    async def _find(self, sha256: str) -> Key | None:
        now = time.monotonic()
        kept = self._kept.get(sha256)
        if kept is not None and now < kept[0]:
            return kept[1]
        row = await self._ledger.run(find_key(sha256))
        if row is None or not hmac.compare_digest(row.sha256, sha256):
            self._kept.pop(sha256, None)
            return None
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[sha256] = (now + KEPT_S, row)
        return row

    async def _no_tenants(self) -> bool:
        now = time.monotonic()
        if now >= self._empty_until:
            if await self._ledger.run(any_tenant()):
                return False
            self._empty_until = now + KEPT_S
        return True


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, "invalid_api_key", message, type="authentication_error", headers={"www-authenticate": "Bearer"})
