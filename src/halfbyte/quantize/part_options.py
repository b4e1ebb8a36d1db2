"""What `--part` can be asked for; every default stands here alone."""

import os
import re
from dataclasses import dataclass

from halfbyte.errors import UsageError, said

COMPLETION_INDEX = "JOB_COMPLETION_INDEX"
"""Environment variable by which Kubernetes tells a pod of an Indexed Job its number."""


@dataclass(frozen=True)
class PartOptions:
    """part: `i/n`, i from 0; `/n` takes i from JOB_COMPLETION_INDEX. lease_seconds: without a heartbeat for so long a
    part is dead, and its shards are taken over.

    Raises UsageError for what cannot be.
    """

    part: str
    lease_seconds: float = 60

    def __post_init__(self) -> None:
        _ = self.place
        if not 0.1 <= self.lease_seconds <= 86_400:
            raise UsageError(said("{lease_seconds} {value}: wanted 0.1 to 86400", value=self.lease_seconds))

    @property
    def place(self) -> tuple[int, int]:
        """Number of the part, and how many there are."""
        found = re.fullmatch(r"(\d{0,9})/(\d{1,9})", self.part)
        index = found.group(1) or os.environ.get(COMPLETION_INDEX, "") if found else ""
        if found is None or not re.fullmatch(r"\d{1,9}", index):
            raise UsageError(
                said("{part} {value}: wanted i/n, i from 0 to n - 1", value=self.part[:40]),
                hint=said("{part} 0/4 to {part} 3/4, or {part} /4 where " + COMPLETION_INDEX + " is set"),
            )
        place = int(index), int(found.group(2))
        if place[0] >= place[1]:
            raise UsageError(
                said(
                    "{part} {value}: parts of {n} are 0 to {last}",
                    value=f"{place[0]}/{place[1]}",
                    n=place[1],
                    last=place[1] - 1,
                )
            )
        return place
