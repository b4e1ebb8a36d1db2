"""The ledger: who may use what, what is reserved, what was used. Exact, durable, and closed when in doubt."""
