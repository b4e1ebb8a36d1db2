"""`halfbyte.json`, the evidence that travels with a checkpoint: what was read, decided, lost and written.

`quantize` writes it, `compare` adds to it, `improve` rewrites it; verify, gate, chat and whoever serves read it.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from halfbyte.evidence.calibration import Calibration, CoverageRecord, DataUsed
from halfbyte.evidence.comparison import Compared, Evaluated
from halfbyte.evidence.conversion import Conversion
from halfbyte.evidence.record import JsonDocument, Number, Record

SCHEMA = 1


class File(Record):
    """A file as it was read or written. sha256: of its bytes, in hexadecimal."""

    file: str
    bytes: int
    sha256: str


class SourceRecord(Record):
    """name: of the folder. format: what its weights were published in (`bf16`, `fp8-block`, `int4-group`, `mxfp4`);
    None in documents of before it was noted. files: all that was read of it."""

    name: str
    format: str | None = None
    files: list[File]


class RecipeRecord(Record):
    """The recipe in full, defaults included; `recipes.recipe.Recipe` says what its fields mean."""

    version: int
    name: str
    description: str = ""
    algorithm: str
    roles: dict[str, str | dict[str, str]]
    layers: dict[str, Any]
    mtp: str

    def gives_the_same(self, other: "RecipeRecord") -> bool:
        """Whether both decide alike about every tensor: their names do not count."""
        names = {"name", "description"}
        return self.model_dump(exclude=names) == other.model_dump(exclude=names)


class ExpertRecord(Record):
    """An expert that was rounded on data: errors of its output on `held_out_tokens`, by the max rule and as it is."""

    tokens: int
    held_out_tokens: int
    output_error_max: Number | None = None
    output_error: Number | None = None
    damping: list[Number] = Field(default_factory=list)


class RoundedOnData(Record):
    """method: `gptq` or `weighted-sweep`. layers: whose routed experts. rounded_by_...: roles of all else.

    experts: by layer, in their order.
    """

    method: str
    data: DataUsed
    settings: dict[str, Any]
    layers: list[int]
    coverage: CoverageRecord
    rounded_by_max: list[str] | None = None
    rounded_by_sweep: list[str] | None = None
    experts: dict[str, list[ExpertRecord]]


class InputScaleRecord(Record):
    """sha256: of the file of scales. calibration: what that file says of its own making."""

    description: str
    constant: Number | None = None
    sha256: str | None = None
    calibration: Calibration | None = None


class RoleRow(Record):
    """Tensors of one role, MTP flag and output format. Errors only where weights were rounded."""

    role: str
    mtp: bool
    format: str
    tensors: int
    parameters: int
    bytes_before: int
    bytes_after: int
    relative_error: Number | None = None
    sqnr_db: Number | None = None
    max_rule_relative_error: Number | None = None
    clamped_blocks: int | None = None
    zero_blocks: int | None = None


class TensorRow(Record):
    """A rounded linear. amax: of the pair, where it is shared. sqnr_db: null where nothing was lost."""

    amax: Number
    relative_error: Number
    sqnr_db: Number | None
    clamped_blocks: int
    zero_blocks: int


class Improving(Record):
    """Shards are being replaced (`quantize --improve`). next: the one in flight, which has the hash in its row of
    `shards`, or this one."""

    rounding: str
    data: DataUsed | None = None
    shards_done: int
    shards: int
    next: File | None = None

    @property
    def statement(self) -> str:
        return f"being improved, {self.shards_done} of {self.shards} shards done: run the same command to finish"


class Dossier(JsonDocument):
    """The whole of `halfbyte.json`. Without times and paths: the same job gives the same bytes.

    A shard is replaced in one rename, its hash here in another, so for a moment either hash is right. The evidence
    allows a hash before its shard is in place: who finds a hash that he does not know reads the evidence again.
    """

    what: ClassVar = "evidence"
    version: ClassVar = ("schema", SCHEMA)
    hint: ClassVar = "halfbyte quantize writes it; remove an edited one, or quantize again"
    indent: ClassVar = 2

    schema_: int = Field(alias="schema")
    halfbyte: str
    versions: dict[str, str]
    model_type: str
    source: SourceRecord
    recipe: RecipeRecord
    rounding: str
    rounded_on_data: RoundedOnData | None = None
    input_scale: InputScaleRecord | None
    warnings: list[str]
    roles: list[RoleRow]
    shards: list[File]
    files: list[File]
    tensors: dict[str, TensorRow]
    compare: list[Compared] = Field(default_factory=list)
    evaluate: list[Evaluated] = Field(default_factory=list)
    improving: Improving | None = None
    converted: Conversion | None = None

    def shard_hashes(self) -> dict[str, set[str]]:
        """The SHA-256 that each shard may have: one, or two while it is being replaced."""
        hashes = {row.file: {row.sha256} for row in self.shards}
        following = self.improving and self.improving.next
        if following:
            hashes.setdefault(following.file, set()).add(following.sha256)
        return hashes

    def in_flight(self, file: str) -> bool:
        """Whether the shard may have another SHA-256 than that of its row."""
        return self.improving is not None and self.improving.next is not None and self.improving.next.file == file

    def allows(self, file: str, sha256: str) -> bool:
        """Whether a shard may have this SHA-256."""
        return sha256 in self.shard_hashes().get(file, ())


def identity(hashes: Mapping[str, str]) -> str:
    """One hash for all shards: SHA-256 over their own, in the order of the file names, names left out."""
    return hashlib.sha256("".join(hashes[name] for name in sorted(hashes)).encode()).hexdigest()
