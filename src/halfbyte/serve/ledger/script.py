"""What the ledger does, as scripts of SQL: each yields a statement, is sent its rows, and returns its result.

One script is one transaction. `sqlite.py` and `postgres.py` drive the same scripts, one in a thread, one in asyncio.
"""

import math
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

Row = tuple[Any, ...]
Parameters = dict[str, Any]
T = TypeVar("T")
Script = Generator[tuple[str, Parameters], list[Row], T]


def day_of(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")


def until_tomorrow_s(now: float) -> int:
    moment = datetime.fromtimestamp(now, UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return max(1, math.ceil((midnight - moment).total_seconds()))


def until_next_month_s(now: float) -> int:
    moment = datetime.fromtimestamp(now, UTC)
    first = (moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    return max(1, math.ceil((first - moment).total_seconds()))
