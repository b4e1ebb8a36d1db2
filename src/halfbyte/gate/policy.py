"""A policy: which rules hold, how hard, with which limits, and what is waived until when. YAML, typed, versioned."""

import hashlib
import json
from datetime import date
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from halfbyte.engines.exclusions import Engine
from halfbyte.errors import UsageError
from halfbyte.formats.catalogue import BF16, F16, F32, NVFP4
from halfbyte.gate.findings import Finding, Found, Severity
from halfbyte.gate.registry import Depth, Rule, all_rules
from halfbyte.models.families import Role

DEFAULT_POLICY = "default"
POLICY_LIMIT_BYTES = 1_000_000
_PLAIN = (BF16, F16, F32)


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
        Role.ROUTED_EXPERT: (NVFP4, *_PLAIN),
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
    engines: tuple[Engine, ...] = ("sglang", "vllm")
    model: Model = Model()
    formats: Formats = Formats()
    numerics: Numerics = Numerics()
    hardware: Hardware = Hardware()
    supply_chain: SupplyChain = SupplyChain()
    evidence: tuple[Evidence, ...] = ()
    rules: dict[str, RuleSetting] = {}
    waivers: tuple[Waiver, ...] = ()

    def applies(self, rule: Rule) -> bool:
        return self.rules.get(rule.id, RuleSetting()).enabled

    def finding(self, rule: Rule, found: Found, today: date) -> Finding:
        """Severity and waiver. An expired waiver makes a refusal of what it used to cover, whatever the severity."""
        severity = self.rules.get(rule.id, RuleSetting()).severity or rule.severity
        severity = max(severity, found.at_most, key=("deny", "warn", "info").index)
        waivers = [waiver for waiver in self.waivers if waiver.covers(rule.id, found)]
        if any(waiver.expires >= today for waiver in waivers):
            return Finding(rule.id, severity, found, waived=True)
        if waivers:
            last = max(waivers, key=lambda waiver: waiver.expires)
            note = f"{found.message} (the waiver of {last.owner} expired on {last.expires})"
            return Finding(rule.id, "deny", Found(note, found.tensor, found.module, found.file))
        if found.missing and severity == "deny":
            return Finding(rule.id, "warn", found, undecided=True)
        return Finding(rule.id, severity, found)

    def sha256(self) -> str:
        """Digest of the policy's meaning: comments and the order of keys do not count."""
        document = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def shipped_policies() -> dict[str, Any]:
    """Name -> file of the policies that come with Halfbyte."""
    folder = resources.files("halfbyte.gate") / "policies"
    return {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def load_policy(name_or_file: str | Path) -> Policy:
    """A shipped policy by name, or a policy file by path. Raises UsageError with a suggestion."""
    shipped, name = shipped_policies(), str(name_or_file)
    if name in shipped:
        return parse_policy(shipped[name].read_text("utf-8"), name)
    path = Path(name_or_file)
    try:
        if not path.is_file():
            near = get_close_matches(name, shipped, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"shipped policies: {', '.join(sorted(shipped))}"
            raise UsageError(f"no policy and no file is called {name[:200]!r}", hint=hint)
        if path.stat().st_size > POLICY_LIMIT_BYTES:
            raise UsageError(f"{path}: {path.stat().st_size} bytes are too many for a policy")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name[:200]}: cannot be read: {error}") from None
    return parse_policy(text, name)


def parse_policy(text: str, where: str) -> Policy:
    """A policy from YAML text. Raises UsageError naming the first thing wrong, with the nearest known word."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{where}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{where}: a policy is a YAML mapping")
    try:
        policy = Policy.model_validate(document)
    except ValidationError as error:
        raise _explained(error, where) from None
    for kind, ids in (("rules", policy.rules), ("waivers", [waiver.rule for waiver in policy.waivers])):
        for id in ids:
            if id not in all_rules():
                near = get_close_matches(id, all_rules(), n=1)
                hint = f"did you mean {near[0]!r}?" if near else "halfbyte gate --explain all lists the rules"
                raise UsageError(f"{where}: {kind}: no rule is called {id[:80]!r}", hint=hint)
    return policy


def _explained(error: ValidationError, where: str) -> UsageError:
    """The first validation error as ours, with a did-you-mean for words that are nearly known."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(piece) for piece in first["loc"] if piece != "[key]")
    if first["type"] == "extra_forbidden":
        word, known, what = str(first["loc"][-1]), _fields_at(first["loc"][:-1]), "unknown setting"
    elif "[key]" in first["loc"]:
        word, known, what = str(first["input"]), [str(role) for role in Role], "unknown role"
    else:
        word, known, what = (
            str(first["input"])[:80],
            ["deny", "warn", "info", "headers", "scales", "full"],
            first["msg"],
        )
    near = get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else None
    if hint is None and first["type"] == "extra_forbidden":
        hint = f"known: {', '.join(known)}"
    return UsageError(f"{where}: {path}: {what} ({word[:80]!r})", hint=hint)


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """The settings that are known at a place of the document."""
    model: type[BaseModel] = Policy
    nested: dict[str, type[BaseModel]] = {
        "rules": RuleSetting,
        "waivers": Waiver,
        "evidence": Evidence,
        "signature": Signature,
    }
    nested |= dict.fromkeys(("bits_per_weight", "weight_scale_2", "input_scale"), Bounds)
    for piece in location:
        if piece in nested:
            model = nested[str(piece)]
        elif isinstance(piece, str) and piece in model.model_fields:
            inner = model.model_fields[piece].annotation
            model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else model
    return list(model.model_fields)
