"""What `quantize` returns."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.process import peak_rss_bytes
from halfbyte.quantize.job import Job
from halfbyte.quantize.room import Room


@dataclass(frozen=True)
class Fetch:
    """What a source that is not here sends: bytes of weights, and seconds for them at 1 and 10 Gbit/s."""

    bytes: int
    seconds_at_1_gbit_per_s: float
    seconds_at_10_gbit_per_s: float

    @classmethod
    def of(cls, size_bytes: int) -> Self:
        return cls(size_bytes, round(size_bytes * 8 / 1e9, 1), round(size_bytes * 8 / 1e10, 1))


@dataclass(frozen=True)
class QuantizeResult:
    """What a run did. roles: see `evidence.role_table`. dry_run: nothing was written.

    replaced_shards: by `improve`, None without; 0 if there was nothing to do. room, fetch: on the disk,
    and over the network, of a dry run.
    """

    output: str
    bytes_in: int
    bytes_out: int
    seconds: float
    peak_rss_bytes: int
    shards: int
    resumed_shards: int
    recipe: str
    algorithm: str
    rounding: str
    input_scale: str | None
    roles: list[dict[str, Any]]
    warnings: list[str]
    dry_run: bool
    replaced_shards: int | None = None
    room: Room | None = None
    fetch: Fetch | None = None

    @classmethod
    def of(cls, job: Job, source: Checkpoint, dst: Path, began: float, **found: Any) -> Self:
        """Of a job that began at `time.monotonic()` `began`. found: what the job itself does not say."""
        return cls(
            output=str(dst),
            bytes_in=source.bytes,
            bytes_out=job.output_bytes,
            seconds=round(time.monotonic() - began, 3),
            peak_rss_bytes=peak_rss_bytes(),
            shards=len(job.shards),
            recipe=job.recipe.name,
            algorithm=job.recipe.algorithm,
            **found,
        )

    def as_json(self) -> dict[str, Any]:
        absent = {key for key in ("replaced_shards", "room", "fetch") if getattr(self, key) is None}
        return {key: value for key, value in asdict(self).items() if key not in absent}
