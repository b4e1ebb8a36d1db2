"""The language model that transformers builds of a config, and where stored tensors go in it.

Some families are known to transformers beside a tower alone, some weights are stored in parts that it joins: both are
levelled out here.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, get_model_conversion_mapping
from transformers.core_model_loading import Concatenate, WeightConverter

from halfbyte.models.family import Family


class Headed(nn.Module):
    """A text model that transformers has no class with a head for, because it only knows it beside a tower."""

    base_model_prefix = "model"

    def __init__(self, base: Any, config: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = base
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False, dtype=dtype)

    @property
    def base_model(self) -> Any:
        return self.model


class Join(NamedTuple):
    """A stored tensor is the number-th of several equal parts, one below the other, of a whole in the model."""

    whole: str
    number: int
    parts: int


def joins(conversions: Iterable[Any]) -> Iterator[tuple[str, Join]]:
    """Of what transformers joins along the rows, by the end of a stored name. Experts have a loader of their own."""
    for entry in conversions:
        if isinstance(entry, WeightConverter) and [type(step) for step in entry.operations] == [Concatenate]:
            for number, part in enumerate(entry.source_patterns):
                if "*" not in part and entry.operations[0].dim == 0:
                    whole = entry.target_patterns[0].replace("\\", "")
                    yield part.replace("\\", ""), Join(whole, number, len(entry.source_patterns))


def causal(config: Any, dtype: torch.dtype) -> Any:
    """The language model with its head, by transformers' classes."""
    plain = {"dtype": dtype, "attn_implementation": "eager", "experts_implementation": "eager"}
    if type(config) in AutoModelForCausalLM._model_mapping:
        return AutoModelForCausalLM.from_config(config, **plain)
    return Headed(AutoModel.from_config(config, **plain), config, dtype)


def base_of(model: Any) -> Any:
    """The model without its head. Llama 4's class names as its base a part that only its wrapper has."""
    return model.base_model if hasattr(model.base_model, "layers") else model.model


def known_to_transformers(model: Any) -> Any:
    """The model as a class of transformers' own."""
    return model.base_model if isinstance(model, Headed) else model


def conversions_of(model: Any, family: Family) -> list[Any]:
    """transformers' steps from stored names and weights to its own. Published names of a family that it knows beside a
    tower alone stand with the model that has the tower."""
    found = list(get_model_conversion_mapping(known_to_transformers(model), None, None))
    if family.only_wrapped:
        found += get_checkpoint_conversion_mapping(family.model_type) or ()
    return found
