"""What is known about model families: one file each, and the one door to them.

`of` takes a config.json and finds the family, looking through wrappers (`text_config`) and aliases; `architecture` and
`role_map` read it. Adding a family is a file here, a line in `_MODULES` and a config in the tests
(docs/adding-a-family.md).
"""

from collections.abc import Iterable
from dataclasses import replace

from halfbyte.errors import CheckpointError, UnsupportedError, said
from halfbyte.models import (
    deepseek_v3,
    deepseek_v4,
    deepseek_v32,
    ernie4_5_moe,
    gemma4,
    glm4_moe,
    glm4_moe_lite,
    glm5_next,
    glm_moe_dsa,
    gpt_oss,
    hunyuan_v1_moe,
    kimi_k2,
    kimi_k25,
    llama4,
    longcat_flash,
    mimo_v2_flash,
    minimax_m2,
    minimax_m3_vl,
    mixtral,
    nemotron_h,
    qwen3_5_moe,
    qwen3_moe,
    qwen3_next,
    qwen3_vl_moe,
)
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config
from halfbyte.models.family import UNWRAPPED, Described, Family, Wrapping
from halfbyte.models.role_map import RoleMap
from halfbyte.models.unsupported import why_not

_MODULES = (
    glm_moe_dsa,
    deepseek_v3,
    deepseek_v32,
    deepseek_v4,
    glm4_moe,
    glm4_moe_lite,
    qwen3_moe,
    qwen3_next,
    qwen3_5_moe,
    qwen3_vl_moe,
    minimax_m2,
    mixtral,
    kimi_k2,
    kimi_k25,
    glm5_next,
    minimax_m3_vl,
    ernie4_5_moe,
    hunyuan_v1_moe,
    mimo_v2_flash,
    nemotron_h,
    gpt_oss,
    gemma4,
    llama4,
    longcat_flash,
)

FAMILIES: dict[str, Family] = {module.FAMILY.model_type: module.FAMILY for module in _MODULES}
BY_NAME = FAMILIES | {alias: family for family in FAMILIES.values() for alias in family.aliases}
"""Every name under which a family is found."""


_OF_BOTH = ("tie_word_embeddings",)
"""Keys that a wrapper's config.json may state beside `text_config` instead of in it."""


def find(model_type: object) -> Family | None:
    """The family of this name or alias, if it is one."""
    return BY_NAME.get(model_type) if isinstance(model_type, str) else None


def family_of(config: Config) -> tuple[Family, Config]:
    """The family of a config.json, and the language model's part of it under the family's own `model_type`.

    Raises UnsupportedError (family), CheckpointError (no model_type).
    """
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError("config.json has no model_type")
    inner = config.get("text_config")
    text = dict(config)
    if is_wrapped(config) and isinstance(inner, dict):
        text = {key: config[key] for key in _OF_BOTH if key in config} | inner
    model_type = str(text.setdefault("model_type", config["model_type"]))
    family = find(model_type)
    if family is None:
        raise _unknown(model_type, "a known family", BY_NAME)
    return family, text | {"model_type": family.model_type}


def text_config_of(config: Config) -> Config:
    """The language model's part of a config.json, of a family that is known or not. What it leaves null (transformers
    writes `architectures` so) is what stands beside it."""
    inner = config.get("text_config")
    if not (is_wrapped(config) and isinstance(inner, dict)):
        return config
    return {**config, **{key: value for key, value in inner.items() if value is not None or key not in config}}


def architecture_of(config: Config) -> Architecture:
    """All numbers of a model. Raises UnsupportedError (family), CheckpointError (missing or senseless key)."""
    family, text = family_of(config)
    arch = family.read(text)
    if arch.top_k > arch.experts:
        raise CheckpointError(f"config.json: {arch.top_k} experts a token, the model has {arch.experts}")
    outer = find(config["model_type"]) or family
    return replace(arch, vision_bytes=outer.vision_bytes(config, arch.hidden)) if outer.vision_bytes else arch


def promised_tensors(arch: Architecture) -> list[Described]:
    """Every tensor of a complete checkpoint, MTP layers included, a vision tower excluded."""
    return [tensor for tensor in FAMILIES[arch.model_type].tensors(arch) if tensor.promised]


def roles_of(config: Config) -> RoleMap:
    """The roles of a model's tensors. Raises as `architecture_of`, and UnsupportedError where names are not known."""
    if isinstance(config.get("model_type"), str) and find(config["model_type"]) is None:
        known = [family.model_type for family in FAMILIES.values() if family.by_name]
        raise _unknown(config["model_type"], "a known mixture-of-experts family", known)
    family, _ = family_of(config)
    alone = not is_wrapped(config)
    wrapping = _wrapping_of(config)
    if alone and not family.named_so_alone:
        wrapping = UNWRAPPED
    if wrapping is None or (alone and family.only_wrapped):
        why = ": they are known beside other towers, not by themselves" if family.only_wrapped else ""
        raise UnsupportedError(
            f"tensors of model_type {config['model_type']!r} are not known by name{why}",
            hint=said("it can be planned on paper: halfbyte plan config.json {recipe} ..."),
        )
    return RoleMap(family, architecture_of(config), wrapping)


def _wrapping_of(config: Config) -> Wrapping | None:
    """How a checkpoint with other towers names its text model, where that is known: the outer family says."""
    outer = find(config.get("model_type"))
    return None if outer is None else outer.wrapping


def _unknown(model_type: str, what: str, known: Iterable[str]) -> UnsupportedError:
    reason = why_not(model_type)
    more = "" if reason is None else f": {reason}"
    return UnsupportedError(f"model_type {model_type[:80]!r} is not {what}{more}", hint=f"known: {', '.join(known)}")


def is_wrapped(config: Config) -> bool:
    """Whether config.json describes a text model beside something else, under `text_config`."""
    return isinstance(config.get("text_config"), dict) and "hidden_size" in config["text_config"]
