"""The ledger's own error: whoever meets it lets no request in."""

from halfbyte.errors import HalfbyteError


class LedgerError(HalfbyteError):
    """The ledger cannot be read or written: no request is let in."""

    kind = "ledger"
