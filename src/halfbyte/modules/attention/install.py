"""Putting the sparse attention into a loaded model, and taking it out.

`install` changes nothing but behaviour: parameters, names, config and saved files stay as they are. Two things are
replaced per model instance, none globally: each attention layer's forward, and, by a hook in front of the base model,
the mask (2-D instead of S x T) and the cache.
"""

from typing import Any

import torch
from torch import nn

from halfbyte.errors import UnsupportedError, UsageError
from halfbyte.models import FAMILIES, find
from halfbyte.models.family import SparseAttention
from halfbyte.modules.attention.forward import SparseForward, why_not
from halfbyte.modules.attention.latent_cache import as_latent
from halfbyte.modules.attention.options import AttentionOptions
from halfbyte.modules.attention.visibility import visibility

# The order of the base models' forward arguments, for callers that pass them by position.
ARGUMENTS = ("input_ids", "attention_mask", "position_ids", "past_key_values", "inputs_embeds", "use_cache")
HOOK = "_halfbyte_attention_hook"


def sparse_attention(model_type: str) -> SparseAttention | None:
    """What is known of a model type's sparse attention, if it has one."""
    family = find(model_type)
    return None if family is None else family.sparse_attention


def install(model: Any, options: AttentionOptions | None = None) -> None:
    """Give a loaded model (`GlmMoeDsaForCausalLM`, `DeepseekV32ForCausalLM`, or their base model) sparse attention.

    Afterwards `model(...)` and `model.generate(...)` are used as before, under `torch.no_grad()`; results equal
    transformers' eager attention. Whatever `attn_implementation` says is not used any more. Installing again replaces
    the options. Raises UnsupportedError for other models.
    """
    sparse = sparse_attention(model.config.model_type)
    if sparse is None:
        known = [name for name, family in FAMILIES.items() if family.sparse_attention is not None]
        raise UnsupportedError(
            f"no sparse attention for model type {model.config.model_type!r}", hint=f"known: {', '.join(known)}"
        )
    base = model.base_model
    layers = [layer.self_attn for layer in base.layers]
    for index, attention in enumerate(layers):
        reason = why_not(attention)
        if reason is not None:
            raise UnsupportedError(f"the attention of layer {index} {reason}")
    uninstall(model)
    for attention in layers:
        setattr(attention, _forward_name(attention), SparseForward(attention, sparse, options or AttentionOptions()))
    setattr(base, HOOK, base.register_forward_pre_hook(_before_forward, with_kwargs=True))


def uninstall(model: Any) -> None:
    """Back to transformers' own attention; nothing happens where none was installed. Caches cannot be carried over."""
    base = model.base_model
    hook = base.__dict__.pop(HOOK, None)
    if hook is None:
        return
    hook.remove()
    for layer in base.layers:
        attention, name = layer.self_attn, _forward_name(layer.self_attn)
        if name == "forward":
            del attention.forward  # the class's own comes back
        else:
            setattr(attention, name, type(attention).forward.__get__(attention))


def _forward_name(attention: nn.Module) -> str:
    """accelerate keeps the forward that it wraps (layers on several devices) under another name."""
    return "_old_forward" if hasattr(attention, "_hf_hook") else "forward"


def _before_forward(base: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hook in front of the base model: cache and mask in our form, what cannot be done refused."""
    given = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
    _refuse(base, given)
    use_cache = base.config.use_cache if given.get("use_cache") is None else given["use_cache"]
    cache, mask = given.get("past_key_values"), given.get("attention_mask")
    if cache is not None or use_cache:
        cache = given["past_key_values"] = as_latent(cache, base.config.num_hidden_layers)
    tokens = given["input_ids"] if given.get("inputs_embeds") is None else given["inputs_embeds"]
    past = 0 if cache is None else cache.get_seq_length()
    num_keys = past + tokens.shape[1]
    if cache is None and mask is not None and mask.shape[1] != num_keys:
        raise UsageError(f"attention_mask covers {mask.shape[1]} tokens, the input has {num_keys}")
    if cache is None and mask is None:
        _refuse_packed(given.get("position_ids"))
    seen = visibility(mask, num_keys)
    # a dict passes the model untouched; its key is the layer type, which was renamed in transformers 5.15 or so
    given["attention_mask"] = {"indexed_attention": seen, "deepseek_sparse_attention": seen}
    return (), given


def _refuse(base: Any, given: dict[str, Any]) -> None:
    """What would silently be wrong."""
    mask = given.get("attention_mask")
    if mask is not None and (not isinstance(mask, torch.Tensor) or mask.dim() != 2):
        raise UnsupportedError(
            "sparse attention takes a 2-D attention_mask [batch, tokens]",
            hint="4-D masks hold queries x keys numbers; uninstall() for a custom mask",
        )
    if given.get("output_attentions") or getattr(base.config, "output_attentions", False):
        raise UnsupportedError("sparse attention has no attention weights to return", hint="uninstall() for those")
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in base.parameters()):
        raise UsageError(
            "sparse attention has no backward pass", hint="call the model under torch.no_grad() or inference_mode()"
        )


def _refuse_packed(position_ids: torch.Tensor | None) -> None:
    """Positions that start again: transformers then separates the sequences packed into one row; we do not."""
    if position_ids is not None and bool((position_ids.diff(dim=-1) != 1).any()):
        raise UnsupportedError(
            "position_ids start again inside a row (packed sequences)", hint="pass the sequences as a padded batch"
        )
