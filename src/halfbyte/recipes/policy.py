"""A policy: which rules hold, how hard, with which limits, and what is waived until when. YAML, typed, versioned."""

import hashlib
import json
from collections.abc import Collection, Iterator
from datetime import date
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.engine import EngineName
from halfbyte.errors import UsageError, said
from halfbyte.formats.catalogue import BF16, F16, F32, NVFP4
from halfbyte.models.roles import Role
from halfbyte.recipes.reading import Table, WrittenFile
from halfbyte.validation import nearest

Severity = Literal["deny", "warn", "info"]
Depth = Literal["headers", "scales", "full"]
"""How much of a checkpoint is read: the headers, the scales too, or every byte."""
_PLAIN = (BF16, F16, F32)
_FORMATS: dict[Role, tuple[str, ...]] = {
    role: (NVFP4, *_PLAIN) if role is Role.ROUTED_EXPERT else _PLAIN for role in Role
}


class Bounds(Table):
    """Inclusive; a bound that is absent does not bind."""

    min: float | None = None
    max: float | None = None


class RuleSetting(Table):
    """severity: instead of the rule's own. enabled: false leaves the rule out altogether."""

    severity: Severity | None = None
    enabled: bool = True


class Formats(Table):
    """Allowed storage formats by role, as `halfbyte inspect` names them. mtp: of every tensor of an MTP layer.

    packed_attention: `warn` for linears of the attention in NVFP4 that engines load (`o_proj`), allowed or not.
    as_published: `allow` for what engines take beside NVFP4 experts in the format in which the model was published
    (DeepSeek-V4's FP8), where a role may be bf16.
    """

    roles: dict[Role, tuple[str, ...]] = Field(default_factory=lambda: dict(_FORMATS))
    mtp: tuple[str, ...] = _PLAIN
    packed_attention: Literal["deny", "warn"] = "deny"
    as_published: Literal["deny", "allow"] = "deny"
    unquantized_expert_layers: int | None = Field(default=None, ge=0)
    bits_per_weight: Bounds = Bounds()


class ModelConfig(Table):
    """What the checkpoint must be a checkpoint of: values that config.json must have."""

    config: dict[str, int | float | str | bool | None] = Field(default_factory=dict)


class Numerics(Table):
    """Limits. Shares are of a tensor's blocks (or codes), ratios are to the median of a layer's experts."""

    weight_scale_2: Bounds = Bounds(min=1e-12, max=4)
    input_scale: Bounds = Bounds(max=1e4)
    input_scale_ruins: float = Field(default=1e-6, ge=0)
    input_scale_clips: float = Field(default=1e-5, ge=0)
    hot_expert_ratio: float = Field(default=16, gt=1)
    input_scale_ratio: float = Field(default=1000, gt=1)
    saturated_share: float = Field(default=0.2, ge=0, le=1)
    underflow_share: float = Field(default=0.05, ge=0, le=1)
    unused_range: float = Field(default=0.05, ge=0, le=1)
    dead_code_share: float = Field(default=0.25, ge=0, le=1)
    source_error: float = Field(default=0.25, gt=0)


class Hardware(Table):
    """required: without --hardware or --cluster the decision stays open. fallback: capability majors below Blackwell's
    on which weight-only serving is accepted. tensor_parallel, context: what the plan must fit with."""

    required: bool = False
    fallback: tuple[int, ...] = (9,)
    tensor_parallel: int | None = Field(default=None, ge=1)
    context: int | None = Field(default=None, ge=1)


class Signature(Table):
    """OpenSSF model-signing. public_key: PEM file of the signer, relative to the policy file."""

    required: bool = False
    file: str = "model.sig"
    public_key: str | None = None


class SupplyChain(Table):
    licences: tuple[str, ...] | None = None
    signature: Signature = Signature()


class WantedEvidence(Table):
    """One comparison or evaluation that must exist, for these very shards. slices: names that must be covered."""

    kind: Literal["compare", "evaluate"]
    suite: str | None = None
    verdict: str | None = None
    max_kl: float | None = Field(default=None, gt=0)
    min_top1_agreement: float | None = Field(default=None, gt=0, le=1)
    min_tokens: int | None = Field(default=None, ge=1)
    slices: tuple[str, ...] = ()
    min_context: int | None = Field(default=None, ge=1)


class Waiver(Table):
    """Accepts what one rule says, until `expires` (inclusive). match: glob on the tensor, module or file to blame."""

    rule: str
    owner: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    expires: date
    match: str = "*"


class Policy(WrittenFile):
    """A whole policy. required_depth: a shallower run leaves the decision open."""

    what: ClassVar = "policy"
    plural: ClassVar = "policies"
    folder: ClassVar = "policies"
    error: ClassVar = UsageError

    version: Literal[1]
    name: str = Field(min_length=1)
    description: str = ""
    required_depth: Depth = "headers"
    engines: tuple[EngineName, ...] = tuple(sorted(ENGINES))
    model: ModelConfig = ModelConfig()
    formats: Formats = Formats()
    numerics: Numerics = Numerics()
    hardware: Hardware = Hardware()
    supply_chain: SupplyChain = SupplyChain()
    evidence: tuple[WantedEvidence, ...] = ()
    rules: dict[str, RuleSetting] = Field(default_factory=dict)
    waivers: tuple[Waiver, ...] = ()

    def sha256(self) -> str:
        """Digest of the policy's meaning: comments and the order of keys do not count."""
        document = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def check_rules(self, known: Collection[str], where: str) -> None:
        """Raise UsageError for a rule that is not known, with the nearest that is."""
        for section, id in self._rules():
            if id not in known:
                hint = nearest(id, list(known)) or said("halfbyte gate {explain} all lists the rules")
                raise UsageError(f"{where}: {section}: no rule is called {id[:80]!r}", hint=hint)

    def _rules(self) -> Iterator[tuple[str, str]]:
        yield from (("rules", id) for id in self.rules)
        yield from (("waivers", waiver.rule) for waiver in self.waivers)


def load_policy(name_or_file: str | Path, rules: Collection[str]) -> Policy:
    """A shipped policy by name, or a file by path. rules: all that a policy can speak of. Raises UsageError."""
    policy, name = Policy.named(name_or_file), str(name_or_file)
    if policy.name in Policy.shipped() and name not in Policy.shipped():
        raise UsageError(
            f"{name}: calls itself {policy.name!r}, the name of a policy that comes with Halfbyte",
            hint="give it a name of its own: decisions are read by the policy's name",
        )
    policy.check_rules(rules, str(name_or_file))
    return policy
