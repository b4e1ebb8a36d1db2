"""What `quantize` returns."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class QuantizeResult:
    """What a run did. roles: see `evidence.role_table`. dry_run: nothing was written.

    replaced_shards: by `improve`, None without; 0 if there was nothing to do.
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

    def as_json(self) -> dict[str, Any]:
        document = asdict(self)
        if self.replaced_shards is None:
            del document["replaced_shards"]
        return document
