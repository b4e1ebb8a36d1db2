"""Policy files: YAML, checked against the rules there are."""

from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from halfbyte.errors import UsageError
from halfbyte.gate.catalogue import all_rules
from halfbyte.gate.policy import Bounds, Evidence, Policy, RuleSetting, Signature, Waiver
from halfbyte.models.roles import Role

POLICY_LIMIT_BYTES = 1_000_000


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
