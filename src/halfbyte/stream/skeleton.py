"""The model as transformers builds it, on the meta device; one decoder layer at a time gets weights and runs.

A layer is run by the base model's own forward, with that layer as its only one: masks, positions and rotary
embeddings are then made by transformers, whatever the family. Of its mixture-of-experts block everything but the loop
over experts is transformers' own code as well; the parts that were computed elsewhere are handed in.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from halfbyte.checkpoint.inventory import Entry
from halfbyte.errors import CheckpointError
from halfbyte.formats.nvfp4 import torch as values
from halfbyte.models.role_map import RoleMap
from halfbyte.modules.experts import check_plain, is_experts

Linears = dict[str, nn.Linear]
"""Name in the checkpoint -> module."""


class Skeleton:
    """model: the causal LM on the meta device, but for rotary tables. `fill` and `empty` give and take weights."""

    def __init__(self, config: Any, dtype: torch.dtype, device: torch.device, roles: RoleMap) -> None:
        """Raises UnsupportedError for a model whose experts are not computed in the common way, CheckpointError for a
        config that makes no model."""
        self.config, self.dtype, self.device, self._roles = config, dtype, device, roles
        self.model: Any = self._built()
        self.base: Any = self.model.base_model
        self.layers: list[Any] = list(self.base.layers)
        conversions = get_model_conversion_mapping(self.model, None, None)
        self._renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
        self._wanted = self.model.state_dict()
        self._float32 = tuple(self.model._get_dtype_plan(dtype))
        for number, layer in enumerate(self.layers):
            if is_experts(getattr(layer.mlp, "experts", layer.mlp)):
                check_plain(layer.mlp.experts, f"{roles.layer_path(number)}.mlp.experts")

    def _built(self) -> Any:
        try:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(
                    self.config, dtype=self.dtype, attn_implementation="eager", experts_implementation="eager"
                )
            model.eval().requires_grad_(False)
            base = model.base_model
            base.rotary_emb = type(base.rotary_emb)(config=self.config).to(self.device)
        except Exception as error:  # transformers trips over a config's numbers in as many ways as there are models
            raise CheckpointError(
                f"config.json: makes no model: {type(error).__name__}: {' '.join(str(error).split())[:200]}",
                hint="check that config.json is the model's own",
            ) from error
        return model

    def target(self, name: str) -> str:
        """A stored tensor's name in the model. Raises CheckpointError if the model has no such tensor."""
        own = self._roles.wrapping.inner(name)
        renamed, _ = rename_source_key(own, self._renamings, [], self.model.base_model_prefix, self._wanted)
        if renamed not in self._wanted:
            raise CheckpointError(
                f"{name}: the model has no such tensor", hint="config.json does not belong to these weights"
            )
        return str(renamed)

    def dtype_of(self, target: str) -> torch.dtype:
        """What transformers computes with: `dtype`, but float32 for what it never lowers."""
        return torch.float32 if any(name in target for name in self._float32) else self.dtype

    def fill(self, entry: Entry, weight: Tensor) -> tuple[str, nn.Module]:
        """Put one weight or bias into its module; returns the module's name in the checkpoint, and the module.

        Raises CheckpointError for a wrong shape.
        """
        target = self.target(entry.name)
        wanted = self._wanted[target]
        if weight.shape != wanted.shape:
            raise CheckpointError(f"{entry.name}: shape {list(weight.shape)}, the model wants {list(wanted.shape)}")
        path, _, name = target.rpartition(".")
        module = self.model.get_submodule(path)
        if name in module._parameters:
            module._parameters[name] = nn.Parameter(weight, requires_grad=False)
        else:
            module._buffers[name] = weight
        return entry.role.module, module

    def check_filled(self, layer: int) -> None:
        """Raise CheckpointError for a tensor that the files lack."""
        experts = getattr(self.layers[layer].mlp, "experts", None)
        routed = set() if experts is None else {id(tensor) for tensor in experts.parameters()}
        for name, tensor in self.layers[layer].state_dict(keep_vars=True).items():
            if tensor.device.type == "meta" and id(tensor) not in routed:
                raise CheckpointError(f"{self._roles.layer_path(layer)}.{name}: missing", hint="complete the download")

    def empty(self, layer: int) -> None:
        self.layers[layer].to("meta")

    def run(self, layer: int, hidden: Tensor, selection: Any) -> tuple[Tensor, Any]:
        """One decoder layer over [B, T, H]: its output, and the selection that it made or was given.

        selection: of the last layer with an indexer, in the form that the attention in use passes on.
        """
        stage = _OnlyLayer(self.layers[layer], selection)
        norm, kinds = self.base.norm, getattr(self.base.config, "layer_types", None)
        self.base.layers, self.base.norm = nn.ModuleList([stage]), nn.Identity()
        if kinds is not None:  # by which the base model picks a mask for its first layer
            self.base.config.layer_types = [kinds[layer], *kinds[1:]]
        try:
            output = self.base(inputs_embeds=hidden, use_cache=False).last_hidden_state
        finally:
            if kinds is not None:
                self.base.config.layer_types = kinds
            self.base.layers, self.base.norm = nn.ModuleList(self.layers), norm
        return output, stage.selection

    def moe(self, layer: int) -> Any:
        """The layer's mixture-of-experts block."""
        return self.layers[layer].mlp

    def before_moe(self, layer: int, hidden: Tensor, selection: Any) -> tuple[Tensor, Tensor, Any]:
        """A layer up to its experts: residual [B, T, H], input of the block [B, T, H], selection."""
        decoder, block = self.layers[layer], self.layers[layer].mlp
        catcher = _Catcher()
        decoder.mlp = catcher
        try:
            residual, selection = self.run(layer, hidden, selection)
        finally:
            decoder.mlp = block
        assert catcher.x is not None
        return residual, catcher.x, selection

    def route(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """The router's choice for the block's input [B, T, H]: experts int64 [B*T, top_k] and weights [B*T, top_k]."""
        catcher = _Catcher()
        with _parts(self.moe(layer), experts=catcher, shared_experts=_Nothing(), shared_expert=_Nothing()):
            self.moe(layer)(x)
        index, weights = catcher.rest
        return index, weights

    def after_experts(self, layer: int, x: Tensor, index: Tensor, weights: Tensor, routed: Tensor) -> Tensor:
        """The block's output [B, T, H] from its input, the routing and the experts' sum [B*T, H]."""
        given = _Given((None, weights, index)), _Given(routed)
        with _parts(self.moe(layer), gate=given[0], experts=given[1]):
            result: Tensor = self.moe(layer)(x)
        return result


class _OnlyLayer(nn.Module):
    """Stands in the list of layers, and brings the selection that an earlier layer made (IndexShare)."""

    def __init__(self, layer: nn.Module, selection: Any) -> None:
        super().__init__()
        self._layer = [layer]  # in a list: not a submodule, so that the model's names stay as they are
        self.selection = selection

    def forward(self, hidden: Tensor, **kwargs: Any) -> Any:
        if "prev_topk_indices" not in kwargs:
            return self._layer[0](hidden, **kwargs)
        result = self._layer[0](hidden, **(kwargs | {"prev_topk_indices": self.selection}))
        self.selection = result[1]
        return result


class _Catcher(nn.Module):
    """Keeps what it is called with. Returns negative zeros: the one number that changes nothing it is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.x: Tensor | None = None
        self.rest: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        self.x, self.rest = x, rest
        return torch.full_like(x, -0.0)


class _Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class _Given(nn.Module):
    """Returns what was computed elsewhere."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, *_: Any) -> Any:
        return self.result


@contextmanager
def _parts(block: nn.Module, **parts: nn.Module) -> Iterator[None]:
    """Other modules in the place of some that the block has."""
    own = {name: getattr(block, name) for name in parts if hasattr(block, name)}
    for name in own:
        setattr(block, name, parts[name])
    try:
        yield
    finally:
        for name, module in own.items():
            setattr(block, name, module)


@contextmanager
def watched(linears: Linears, look: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `look(name, input)` whenever one of the linears runs."""
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: look(name, args[0]))
        for name, module in linears.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def rounds_its_input(linear: nn.Linear, scale: Tensor) -> Any:
    """Make a linear round its input to NVFP4 first (a4-sim), with its own input_scale, float32 []. Returns the hook."""
    return linear.register_forward_pre_hook(
        lambda _, args: (values.fake_quantized(args[0], scale).to(args[0].dtype), *args[1:])
    )
