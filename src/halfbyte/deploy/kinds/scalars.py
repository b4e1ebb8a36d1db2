"""Values of Kubernetes that are more than a string: quantities, int-or-string, names, labels."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import Field, PlainValidator

QUANTITY = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))((?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?)")
"""Number and suffix of a resource quantity (apimachinery, pkg/api/resource)."""

POWERS = {suffix: Decimal(1024) ** (power + 1) for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))} | {
    suffix: Decimal(10) ** power
    for suffix, power in {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}.items()
}


def amount(quantity: int | float | str) -> Decimal:
    """The number that a quantity means: "500m" is 0.5, "3Ti" 3 * 1024**4. Raises ValueError if it means none."""
    found = QUANTITY.fullmatch(str(quantity))
    if not found:
        raise ValueError("wanted a quantity such as 16, 500m or 3Ti")
    number, suffix = found.groups()
    return Decimal(number) * POWERS[suffix] if suffix in POWERS else Decimal(number + suffix)


def _quantity(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("wanted a quantity such as 16, 500m or 3Ti")
    amount(value)
    return value


def _int_or_string(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValueError("wanted an integer or a string")
    return value


Quantity = Annotated[int | float | str, PlainValidator(_quantity)]
IntOrString = Annotated[int | str, PlainValidator(_int_or_string)]

NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"

ObjectName = Annotated[str, Field(max_length=253, pattern=NAME)]
LabelKey = Annotated[str, Field(max_length=317, pattern=KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=VALUE)]
