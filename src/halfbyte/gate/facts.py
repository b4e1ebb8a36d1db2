"""What is known about one checkpoint, collected once; rules only look. Damage is a fact here, not an exception."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.files import FileInfo, Files
from halfbyte.checkpoint.inventory import Alike, Entry, each_entry
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.engine import EngineName
from halfbyte.evidence.dossier import Dossier
from halfbyte.formats.catalogue import NVFP4, WHOLE
from halfbyte.formats.modelopt import MOE_ALGORITHM, WEIGHT_ONLY, WITH_ACTIVATIONS
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.gate.compressed import as_modelopt, is_compressed
from halfbyte.gate.findings import Found
from halfbyte.gate.measures import TensorStatistics
from halfbyte.models.architecture import Architecture
from halfbyte.models.family import Mixture
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import TABLE, Role
from halfbyte.progress import Progress
from halfbyte.recipes.policy import Depth, Policy


@dataclass(frozen=True)
class RuleOptions:
    """What the user asked for beside the policy. engines: none named means all of the policy's.

    engine_version: of the one engine named. hardware: `b200x8`. cluster: `kubectl get nodes -o json`, parsed.
    policy_folder: what relative paths in the policy are relative to.
    """

    depth: Depth = "headers"
    engines: tuple[EngineName, ...] = ()
    engine_version: str | None = None
    hardware: str | None = None
    cluster: dict[str, Any] | None = None
    source: str | None = None
    workers: int | None = None
    policy_folder: Path = Path()
    today: date = field(default_factory=date.today)


@dataclass
class ShardFacts:
    """One shard. bytes: None where the file is missing. sha256: computed, or stated by the hub (`stated`)."""

    file: str
    bytes: int | None = None
    header_sha256: str | None = None
    sha256: str | None = None
    stated: str | None = None


@dataclass
class Facts:
    """config, index, evidence...: parsed files, empty where absent or unreadable (then `problems` says so).

    problems: rule id -> what reading came across. tensors: all that the headers hold. alike: the logical tensors, a
    layer's experts as one: of a million, entries would take more memory than all headers. index: without its map. side:
    files that rules read; digests: SHA-256 of these and of files too large to keep. roles, arch: None where config.json
    does not describe a known model. measured: what `statistics.statistics` read.
    """

    files: Files
    policy: Policy
    options: RuleOptions
    progress: Progress
    listing: dict[str, FileInfo] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    index: dict[str, Any] | None = None
    quant: dict[str, Any] | None = None
    evidence: Dossier | None = None
    side: dict[str, bytes] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    shards: dict[str, ShardFacts] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    roles: RoleMap | None = None
    arch: Architecture | None = None
    alike: list[Alike] = field(default_factory=list)
    problems: dict[str, list[Found]] = field(default_factory=dict)
    measured: list[TensorStatistics] | None = None

    @property
    def engines(self) -> tuple[EngineName, ...]:
        return self.options.engines or self.policy.engines or tuple(ENGINES)

    def problem(self, rule: str, message: str, **subject: str) -> None:
        """Note what a rule will report. At most 20 of a kind are kept: a list of 200,000 helps nobody."""
        found = self.problems.setdefault(rule, [])
        if len(found) < 20:
            found.append(Found(message, **subject))  # type: ignore[arg-type]

    def each_entry(self) -> Iterator[Entry]:
        """The logical tensors one by one; what is unsound among them was noted before."""
        if self.roles is not None:
            for entry in each_entry(self.tensors, self.roles, lambda name, error: None):
                yield as_modelopt(entry)

    @cached_property
    def packed(self) -> list[Alike]:
        """The NVFP4 linears."""
        return [some for some in self.alike if some.first.format == NVFP4]

    @cached_property
    def linears(self) -> list[Alike]:
        """Weights of matrices, packed or not: what an engine builds a linear for."""
        return [some for some in self.alike if is_linear(some.first)]

    @cached_property
    def formats(self) -> "Counter[tuple[Role, bool, str]]":
        """Logical tensors by role, MTP flag and format, tables and biases of experts aside."""
        found: Counter[tuple[Role, bool, str]] = Counter()
        for entry, count, _ in self.alike:
            if entry.role.part == TABLE and entry.format in WHOLE:
                continue
            if is_expert_bias(entry):
                continue
            found[entry.role.role, entry.role.mtp, entry.format] += count
        return found

    def first(self, role: Role, mtp: bool, form: str) -> Entry:
        return next(e for e, *_ in self.alike if (e.role.role, e.role.mtp, e.format) == (role, mtp, form))

    @cached_property
    def expert_layers(self) -> dict[int, dict[str, list[Alike]]]:
        """Decoder layer -> format -> its routed experts' linears; MTP layers left out."""
        found: dict[int, dict[str, list[Alike]]] = {}
        for some in self.alike:
            role = some.first.role
            expert = role.role is Role.ROUTED_EXPERT and not is_expert_bias(some.first)
            if expert and not role.mtp and role.layer is not None:
                found.setdefault(role.layer, {}).setdefault(some.first.format, []).append(some)
        return found

    @cached_property
    def source(self) -> Checkpoint | None:
        """The unquantized checkpoint, where one was given. Raises CheckpointError."""
        return Checkpoint.open(self.options.source) if self.options.source is not None else None

    @property
    def quantization(self) -> dict[str, Any] | None:
        """The flat block of config.json."""
        block = self.config.get("quantization_config")
        return block if isinstance(block, dict) else None

    @property
    def compressed(self) -> bool:
        """Whether the layout is compressed-tensors'."""
        return is_compressed(self.quantization)

    @property
    def nested_quantization(self) -> dict[str, Any] | None:
        """The block under `quantization` in hf_quant_config.json."""
        block = (self.quant or {}).get("quantization")
        return block if isinstance(block, dict) else None

    @property
    def mixture(self) -> Mixture | None:
        """Beside what the experts are NVFP4, where config.json says of the experts alone that they are."""
        stated = str((self.quantization or {}).get(MOE_ALGORITHM) or "").upper()
        return self.roles.family.mixture if self.roles is not None and stated == WITH_ACTIVATIONS else None

    @property
    def algorithm(self) -> str | None:
        """The algorithm's name from the block that engines look at first; of compressed-tensors by its groups."""
        if self.compressed:
            activations = QuantizationBlock(self.quantization or {}).quantizes_activations(if_absent=False)
            return WITH_ACTIVATIONS if activations else WEIGHT_ONLY
        for block in (self.quantization, self.nested_quantization):
            if block is not None and isinstance(block.get("quant_algo"), str):
                return str(block["quant_algo"])
        return None


def is_linear(entry: Entry) -> bool:
    """A matrix's weight: what an engine builds a linear for."""
    return "weight" in entry.tensors and len(entry.shape) >= 2 and entry.role.role is not Role.NORM


def is_expert_bias(entry: Entry) -> bool:
    """What experts have beside their matrices, in the format of whatever adds it up."""
    return entry.role.role is Role.ROUTED_EXPERT and entry.role.projection is None


def reported(facts: Facts, rule: str) -> Iterator[Found]:
    """What reading noted for a rule."""
    yield from facts.problems.get(rule, ())
