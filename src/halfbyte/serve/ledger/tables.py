"""The tables of the ledger, in the SQL that SQLite and PostgreSQL share. Times are seconds since 1970, days UTC's.

`requests` is the ledger: a row is reserved (`open`) before the upstream is called, and settled once. What is reserved
is always the sum of open rows, so nothing can leak; what is used is kept in `used` by day and month and always equals
the sum of settled rows, since both change in one transaction.
"""

VERSION = 1

TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS tenants (
        name TEXT PRIMARY KEY, limits TEXT NOT NULL, created DOUBLE PRECISION NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS keys (
        sha256 TEXT PRIMARY KEY, tenant TEXT NOT NULL, prefix TEXT NOT NULL, created DOUBLE PRECISION NOT NULL,
        expires DOUBLE PRECISION)""",
    "CREATE INDEX IF NOT EXISTS keys_by_tenant ON keys (tenant, created)",
    """CREATE TABLE IF NOT EXISTS requests (
        id TEXT PRIMARY KEY, door TEXT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL,
        started DOUBLE PRECISION NOT NULL, day TEXT NOT NULL, price TEXT NOT NULL,
        held_prompt BIGINT NOT NULL, held_output BIGINT NOT NULL, held_usd BIGINT NOT NULL,
        settled INTEGER NOT NULL DEFAULT 0, status TEXT NOT NULL DEFAULT 'open', ended DOUBLE PRECISION,
        prompt BIGINT NOT NULL DEFAULT 0, cached BIGINT NOT NULL DEFAULT 0, output BIGINT NOT NULL DEFAULT 0,
        reasoning BIGINT NOT NULL DEFAULT 0, usd BIGINT NOT NULL DEFAULT 0)""",
    "CREATE INDEX IF NOT EXISTS requests_open ON requests (tenant) WHERE settled = 0",
    "CREATE INDEX IF NOT EXISTS requests_by_day ON requests (day, tenant)",
    """CREATE TABLE IF NOT EXISTS used (
        tenant TEXT NOT NULL, period TEXT NOT NULL, requests BIGINT NOT NULL, tokens BIGINT NOT NULL,
        usd BIGINT NOT NULL, PRIMARY KEY (tenant, period))""",
    """CREATE TABLE IF NOT EXISTS seconds (
        tenant TEXT NOT NULL, second BIGINT NOT NULL, requests BIGINT NOT NULL, prompt BIGINT NOT NULL,
        output BIGINT NOT NULL, PRIMARY KEY (tenant, second))""",
    """CREATE TABLE IF NOT EXISTS doors (
        id TEXT PRIMARY KEY, beat DOUBLE PRECISION NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS pool (
        day TEXT PRIMARY KEY, seconds DOUBLE PRECISION NOT NULL, usd BIGINT NOT NULL)""",
)
