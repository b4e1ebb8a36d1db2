"""A policy: which rules hold, how hard, with which limits, and what is waived until when. YAML, typed, versioned."""

import hashlib
import json
from datetime import date
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.engine import EngineName
from halfbyte.gate.depths import Depth
from halfbyte.gate.findings import Found, Severity
from halfbyte.models.families import Role

DEFAULT_POLICY = "default"
_PLAIN = ("bf16", "f16", "f32")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bounds(_Strict):
    """Inclusive; a bound that is absent does not bind."""

    min: float | None = None
    max: float | None = None


class RuleSetting(_Strict):
    """severity: instead of the rule's own. enabled: false leaves the rule out altogether."""

    severity: Severity | None = None
    enabled: bool = True


class Formats(_Strict):
    """Allowed storage formats by role, as `halfbyte inspect` names them. mtp: of every tensor of an MTP layer."""

    roles: dict[Role, tuple[str, ...]] = {
        Role.ROUTED_EXPERT: ("nvfp4", *_PLAIN),
        **{role: _PLAIN for role in Role if role is not Role.ROUTED_EXPERT},
    }
    mtp: tuple[str, ...] = _PLAIN
    unquantized_expert_layers: int | None = Field(default=None, ge=0)
    bits_per_weight: Bounds = Bounds()


class Model(_Strict):
    """What the checkpoint must be a checkpoint of: values that config.json must have."""

    config: dict[str, int | float | str | bool | None] = {}


class Numerics(_Strict):
    """Limits. Shares are of a tensor's blocks (or codes), ratios are to the median of a layer's experts."""

    weight_scale_2: Bounds = Bounds(min=1e-12, max=4)
    input_scale: Bounds = Bounds(min=1e-7, max=1e4)
    hot_expert_ratio: float = Field(default=16, gt=1)
    input_scale_ratio: float = Field(default=1000, gt=1)
    saturated_share: float = Field(default=0.2, ge=0, le=1)
    underflow_share: float = Field(default=0.05, ge=0, le=1)
    unused_range: float = Field(default=0.05, ge=0, le=1)
    dead_code_share: float = Field(default=0.25, ge=0, le=1)
    source_error: float = Field(default=0.25, gt=0)


class Hardware(_Strict):
    """required: without --hardware or --cluster the decision stays open. fallback: capability majors below Blackwell's
    on which weight-only serving is accepted. tensor_parallel, context: what the plan must fit with."""

    required: bool = False
    fallback: tuple[int, ...] = (9,)
    tensor_parallel: int | None = Field(default=None, ge=1)
    context: int | None = Field(default=None, ge=1)


class Signature(_Strict):
    """OpenSSF model-signing. public_key: PEM file of the signer, relative to the policy file."""

    required: bool = False
    file: str = "model.sig"
    public_key: str | None = None


class SupplyChain(_Strict):
    licences: tuple[str, ...] | None = None
    signature: Signature = Signature()


class Evidence(_Strict):
    """One comparison or evaluation that must exist, for these very shards. slices: names that must be covered."""

    kind: Literal["compare", "evaluate"]
    suite: str | None = None
    verdict: str | None = None
    max_kl: float | None = Field(default=None, gt=0)
    min_top1_agreement: float | None = Field(default=None, gt=0, le=1)
    min_tokens: int | None = Field(default=None, ge=1)
    slices: tuple[str, ...] = ()
    min_context: int | None = Field(default=None, ge=1)


class Waiver(_Strict):
    """Accepts what one rule says, until `expires` (inclusive). match: glob on the tensor, module or file to blame."""

    rule: str
    owner: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    expires: date
    match: str = "*"

    def covers(self, rule: str, found: Found) -> bool:
        return self.rule == rule and fnmatchcase(found.subject, self.match)


class Policy(_Strict):
    """A whole policy. required_depth: a shallower run leaves the decision open."""

    version: Literal[1]
    name: str = Field(min_length=1)
    description: str = ""
    required_depth: Depth = "headers"
    engines: tuple[EngineName, ...] = tuple(sorted(ENGINES))
    model: Model = Model()
    formats: Formats = Formats()
    numerics: Numerics = Numerics()
    hardware: Hardware = Hardware()
    supply_chain: SupplyChain = SupplyChain()
    evidence: tuple[Evidence, ...] = ()
    rules: dict[str, RuleSetting] = {}
    waivers: tuple[Waiver, ...] = ()

    def sha256(self) -> str:
        """Digest of the policy's meaning: comments and the order of keys do not count."""
        document = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
