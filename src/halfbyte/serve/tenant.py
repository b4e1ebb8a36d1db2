"""A tenant and its limits."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from halfbyte.errors import UsageError, said

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
NOBODY = "local"
"""Whoever asks a door that has no tenants, which listens on loopback only."""
IDLE = "idle"
"""The row of usage for what the machines cost beyond what tenants paid."""

MOST = 1 << 53
"""Largest count that JSON's readers keep exactly."""

Count = Annotated[int, Field(ge=1, le=MOST, strict=True)]
Usd = Annotated[float, Field(gt=0, le=9e6, allow_inf_nan=False)]


class Limits(BaseModel):
    """What a tenant may use; None does not bind. Days and months are UTC's, minutes any 60 seconds.

    priority: higher goes first where requests wait. models: served models that it may ask for, all if None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: Count | None = None
    input_tokens_per_minute: Count | None = None
    output_tokens_per_minute: Count | None = None
    concurrency: Count | None = None
    tokens_per_day: Count | None = None
    tokens_per_month: Count | None = None
    usd_per_day: Usd | None = None
    usd_per_month: Usd | None = None
    priority: Annotated[int, Field(ge=-100, le=100, strict=True)] = 0
    models: tuple[str, ...] | None = None

    @property
    def has_budget_in_usd(self) -> bool:
        return self.usd_per_day is not None or self.usd_per_month is not None

    @property
    def counts_tokens(self) -> bool:
        """Whether any limit depends on how many tokens a request takes."""
        return self.has_budget_in_usd or any(
            limit is not None
            for limit in (
                self.input_tokens_per_minute,
                self.output_tokens_per_minute,
                self.tokens_per_day,
                self.tokens_per_month,
            )
        )


def check_name(name: str) -> str:
    """A tenant's name: it becomes a label of metrics and a field of reports. Raises UsageError."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"tenant name {name[:80]!r}: wanted 1 to 64 letters, digits, dots, dashes and underscores, a letter or "
            "digit at either end"
        )
    if name in (NOBODY, IDLE):
        raise UsageError(f"tenant name {name!r}: reports use it for something else")
    return name


def limits_from(values: dict[str, Any]) -> Limits:
    """Limits from options. Raises UsageError naming the one at fault."""
    try:
        return Limits.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "limits"
        given = str(first["input"])[:60]
        raise UsageError(said(f"{{{name}}}: {{what}}, {{given!r}} given", what=first["msg"], given=given)) from None
