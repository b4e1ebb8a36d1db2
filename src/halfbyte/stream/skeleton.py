"""The model as transformers builds it, on the meta device; one decoder layer at a time gets weights and runs.

A layer is run by the base model's own forward, with that layer as its only one: masks, positions and rotary
embeddings are then made by transformers, whatever the family. Of its mixture-of-experts block everything but the loop
over experts is transformers' own code as well; the parts that were computed elsewhere are handed in.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.core_model_loading import WeightRenaming, rename_source_key

from halfbyte.checkpoint.inventory import Entry
from halfbyte.errors import CheckpointError
from halfbyte.formats.nvfp4 import torch as values
from halfbyte.models.role_map import RoleMap
from halfbyte.modules.experts import check_joined, is_experts, join_of
from halfbyte.stream.causal import base_of, causal, conversions_of, joins, known_to_transformers


@dataclass(frozen=True)
class Linear:
    """A linear of the checkpoint: a module of transformers' model, or some of its rows where it joins several."""

    module: nn.Linear
    rows: slice | None = None

    @property
    def weight(self) -> Tensor:
        return self.module.weight if self.rows is None else self.module.weight[self.rows]


Linears = dict[str, Linear]
"""By name in the checkpoint."""


class Filled(NamedTuple):
    """Where a weight went. name: of its module in the checkpoint. rows: which of the module's, None for all."""

    name: str
    module: nn.Module
    rows: slice | None


class Skeleton:
    """model: the causal LM on the meta device, but for rotary tables. `fill` and `empty` give and take weights.

    beside: whether experts and router stand in the layer itself, beside its MLP.
    """

    def __init__(self, config: Any, dtype: torch.dtype, device: torch.device, roles: RoleMap) -> None:
        """Raises UnsupportedError for a model whose experts are not computed in the common way, CheckpointError for a
        config that makes no model."""
        self.config, self.dtype, self.device, self._roles = config, dtype, device, roles
        self.streams = roles.arch.streams
        self.model: Any = self._built()
        self.base: Any = base_of(self.model)
        self.layers: list[Any] = list(self.base.layers)
        self.beside = any(hasattr(layer, "experts") for layer in self.layers)
        known, conversions = known_to_transformers(self.model), conversions_of(self.model, roles.family)
        self._renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
        self._joins = dict(joins(conversions))
        self._wanted = self.model.state_dict()
        self._lacking: dict[str, int] = {}  # parts of joined tensors that are still to come
        self._float32 = tuple(known._get_dtype_plan(dtype))
        self.takes_sdpa = bool(known._supports_sdpa)
        for number, layer in enumerate(self.layers):
            block = self.moe(number)
            if is_experts(getattr(block, "experts", block)):
                name = "experts" if block is layer else f"{_block_name(layer)}.experts"
                check_joined(block.experts, f"{roles.layer_path(number)}.{name}", roles.family.stacked)

    def _built(self) -> Any:
        try:
            with torch.device("meta"):
                model = causal(self.config, self.dtype)
            model.eval().requires_grad_(False)
            base = base_of(model)
            if hasattr(base, "rotary_emb"):
                base.rotary_emb = type(base.rotary_emb)(config=self.config).to(self.device)
                _share(base.rotary_emb, base.layers)
        except Exception as error:  # transformers trips over a config's numbers in as many ways as there are models
            raise CheckpointError(
                f"config.json: makes no model: {type(error).__name__}: {' '.join(str(error).split())[:200]}",
                hint="check that config.json is the model's own",
            ) from error
        return model

    def target(self, name: str) -> str:
        """A stored tensor's name in the model, or of the one that it is joined into. Raises CheckpointError if the
        model has no such tensor."""
        own = name if self._roles.family.named_so_alone else self._roles.wrapping.inner(name)
        renamed, _ = rename_source_key(own, self._renamings, [], self.model.base_model_prefix, self._wanted)
        if renamed not in self._wanted:
            joined = (renamed.replace(part, join.whole) for part, join in self._joins.items() if part in renamed)
            renamed = next(joined, renamed)
        if renamed not in self._wanted:
            raise CheckpointError(
                f"{name}: the model has no such tensor", hint="config.json does not belong to these weights"
            )
        return str(renamed)

    def dtype_of(self, target: str) -> torch.dtype:
        """What transformers computes with: `dtype`, but float32 for what it never lowers."""
        return torch.float32 if any(name in target for name in self._float32) else self.dtype

    def fill(self, entry: Entry, weight: Tensor) -> Filled:
        """Put one weight or bias into its module. Raises CheckpointError for a wrong shape."""
        target = self.target(entry.name)
        join = next((join for part, join in self._joins.items() if part in entry.name), None)
        rows, *rest = self._wanted[target].shape or (1,)
        wanted = self._wanted[target].shape if join is None else (rows // join.parts, *rest)
        if weight.shape != wanted:
            raise CheckpointError(f"{entry.name}: shape {list(weight.shape)}, the model wants {list(wanted)}")
        path, _, name = target.rpartition(".")
        module = self.model.get_submodule(path)
        if join is not None:
            if target not in self._lacking:
                whole = weight.new_empty(self._wanted[target].shape)
                module._parameters[name] = nn.Parameter(whole, requires_grad=False)
                self._lacking[target] = join.parts
            own = slice(join.number * wanted[0], (join.number + 1) * wanted[0])
            module._parameters[name].data[own] = weight
            self._lacking[target] -= 1
            return Filled(entry.role.module, module, own)
        if name in module._parameters:
            module._parameters[name] = nn.Parameter(weight, requires_grad=False)
        else:
            module._buffers[name] = weight
        return Filled(entry.role.module, module, None)

    def check_filled(self, layer: int) -> None:
        """Raise CheckpointError for a tensor that the files lack."""
        experts = getattr(self.moe(layer), "experts", None)
        routed = set() if experts is None else {id(tensor) for tensor in experts.parameters() if tensor.ndim == 3}
        lacking = {name for name, parts in self._lacking.items() if parts}
        self._lacking.clear()
        for name, tensor in self.layers[layer].state_dict(keep_vars=True).items():
            partly = any(whole.endswith(f".{layer}.{name}") for whole in lacking)
            if partly or (tensor.device.type == "meta" and id(tensor) not in routed):
                raise CheckpointError(f"{self._roles.layer_path(layer)}.{name}: missing", hint="complete the download")

    def check_closed(self) -> None:
        """The same for what mixes the streams behind the last layer."""
        for name, tensor in getattr(self.base, "hc_head", nn.Identity()).state_dict(keep_vars=True).items():
            if tensor.device.type == "meta":
                raise CheckpointError(f"hc_head.{name}: missing", hint="complete the download")

    def empty(self, layer: int) -> None:
        self.layers[layer].to("meta")

    def run(self, layer: int, hidden: Tensor, selection: Any, ids: Tensor | None) -> tuple[Tensor, Any]:
        """One decoder layer over [B, T, streams x H]: its output, and the selection that it made or was given.

        selection: of the last layer with an indexer, in the form that the attention in use passes on. ids: [B, T], for
        layers that choose experts by them.
        """
        several = hidden.unflatten(-1, (self.streams, -1)) if self.streams > 1 else None
        stage = _OnlyLayer(self.layers[layer], selection, several, ids)
        kinds = getattr(self.base.config, "layer_types", None)
        ends = {name: nn.Identity() for name in (*FINAL_NORMS, "hc_head")}
        if kinds is not None:  # by which the base model picks a mask for its first layer
            self.base.config.layer_types = [kinds[layer], *kinds[1:]]
        try:
            with _parts(self.base, layers=nn.ModuleList([stage]), **ends):
                embedded = hidden if several is None else several[:, :, 0]
                output = self.base(inputs_embeds=embedded, use_cache=False).last_hidden_state
        finally:
            if kinds is not None:
                self.base.config.layer_types = kinds
        return output if several is None else output.flatten(2), stage.selection

    def opened(self, embedded: Tensor) -> Tensor:
        """Rows of the embedding [T, H] as the first layer takes them, [T, streams x H], scaled where the model does."""
        scale = getattr(self.base.get_input_embeddings(), "scalar_embed_scale", None)
        if scale is not None:
            embedded = embedded * torch.tensor(scale, device=embedded.device).to(embedded.dtype)
        return embedded if self.streams == 1 else embedded.repeat(1, self.streams)

    def closed(self, hidden: Tensor) -> Tensor:
        """What the last layer gives, [1, T, streams x H], as the final norm takes it, [1, T, H]."""
        if self.streams == 1:
            return hidden
        collapsed: Tensor = self.base.hc_head(hidden.unflatten(-1, (self.streams, -1)))
        return collapsed

    @property
    def final_norm(self) -> Any:
        """Behind the last layer."""
        return next(getattr(self.base, name) for name in FINAL_NORMS if hasattr(self.base, name))

    def moe(self, layer: int) -> Any:
        """The layer's mixture-of-experts block; the layer itself where the experts stand beside its MLP."""
        decoder = self.layers[layer]
        return decoder if hasattr(decoder, "experts") else getattr(decoder, _block_name(decoder))

    def join(self, layer: int) -> Callable[[Tensor], Tensor]:
        """How the layer's experts make their intermediate [n, I] of gate and up [n, 2I], or of up alone."""
        return join_of(self.moe(layer).experts)

    def before_moe(self, layer: int, hidden: Tensor, selection: Any, ids: Tensor | None) -> "BeforeMoe":
        """A layer up to its experts; to both of its branches where they stand beside its MLP."""
        decoder, catcher, shares = self.layers[layer], _Catcher(self._roles.family.scores_beside), list[Tensor]()
        hook = None
        if self.beside:
            nothing = _Nothing()
            parts = {"pre_feedforward_layernorm": catcher, "mlp": nothing, "router": _Given((None,) * 3)}
            parts |= {"experts": nothing}
        else:
            parts = {_block_name(decoder): catcher}
        if self.streams > 1:
            hook = decoder.ffn_hc.register_forward_hook(lambda _, args, result: shares.append(result[0]))
        try:
            with _parts(decoder, **parts):
                residual, selection = self.run(layer, hidden, selection, ids)
        finally:
            if hook is not None:
                hook.remove()
        assert catcher.x is not None
        if self.beside:
            residual = catcher.x
        return BeforeMoe(residual, catcher.x, selection, shares[0].to(residual.dtype) if shares else None)

    def route(self, layer: int, x: Tensor, ids: Tensor | None) -> "Routed":
        """What the block does with its input [B, T, H] before any expert runs."""
        if self._roles.family.scores_first:
            x = x.flatten(0, 1)
            scores, _ = self.moe(layer).router(x)  # of all experts, zeros but for the chosen
            weights, chosen = scores.topk(self._roles.arch.top_k)
            return Routed(x, chosen, weights)
        by_token = {} if ids is None else {"input_ids": ids}
        catcher = _Catcher()
        if self.beside:
            self._behind_attention(layer, x, mlp=_Nothing(), experts=catcher)
            assert catcher.x is not None
            return Routed(catcher.x, *catcher.rest)
        with _parts(self.moe(layer), experts=catcher, shared_experts=_Nothing(), shared_expert=_Nothing()):
            self.moe(layer)(x, **by_token)
        assert catcher.x is not None
        return Routed(catcher.x, *catcher.rest)

    def after_experts(self, layer: int, x: Tensor, index: Tensor, weights: Tensor, routed: Tensor) -> Tensor:
        """The block's output [B, T, H] from its input, the routing and the experts' sum [B*T, expert_hidden]. Where the
        experts stand beside an MLP it is the layer's."""
        given = (weights.new_ones(len(weights), 1), None) if self._roles.family.scores_first else (None, weights, index)
        router, experts = _Given(given), _Given(routed)
        if self.beside:
            own = {"router": router, "experts": experts, "pre_feedforward_layernorm_2": nn.Identity()}
            return self._behind_attention(layer, x, **own)
        with _parts(self.moe(layer), gate=router, router=router, experts=experts, fc1_latent_proj=nn.Identity()):
            result = self.moe(layer)(x)
        output: Tensor = result[0] if self._roles.family.scores_beside else result
        return output.view(x.shape)

    def _behind_attention(self, layer: int, x: Tensor, **parts: nn.Module) -> Tensor:
        """A layer with experts beside its MLP, run on what its attention has left [B, T, H]."""
        nothing = _Given((torch.full_like(x, -0.0), None))
        own = {"input_layernorm": nn.Identity(), "self_attn": nothing, "post_attention_layernorm": nn.Identity()}
        with _parts(self.layers[layer], **own, **parts):
            result: Tensor = self.layers[layer](x)
        return result


class Routed(NamedTuple):
    """x: inputs of the experts, [B*T, expert_hidden]. chosen: experts, int64 [B*T, top_k]. weights: [B*T, top_k]."""

    x: Tensor
    chosen: Tensor
    weights: Tensor


@dataclass(frozen=True)
class BeforeMoe:
    """residual: [B, T, streams x H]. x: input of the block, [B, T, H], or again the residual where the experts stand
    beside an MLP. selection: made or given. shares: of each stream in the block's output, [B, T, streams]; None where
    there is one stream, which takes all of it."""

    residual: Tensor
    x: Tensor
    selection: Any
    shares: Tensor | None


class _OnlyLayer(nn.Module):
    """Stands in the list of layers, and brings the selection that an earlier layer made (IndexShare).

    streams: the hidden states of a model that keeps several, [B, T, streams, H], in place of what the base model makes
    of the embeddings that it was called with. ids: which it was not called with.
    """

    def __init__(self, layer: nn.Module, selection: Any, streams: Tensor | None, ids: Tensor | None) -> None:
        super().__init__()
        self.block_type = getattr(layer, "block_type", None)  # by which Nemotron-H's base model picks a mask
        self._layer = [layer]  # in a list: not a submodule, so that the model's names stay as they are
        self.selection, self._streams, self._ids = selection, streams, ids

    def forward(self, hidden: Tensor, *inputs: Any, **kwargs: Any) -> Any:
        if self._streams is not None:
            hidden = self._streams
        if self._ids is not None:
            kwargs["input_ids"] = self._ids
        if "prev_topk_indices" not in kwargs:
            return self._layer[0](hidden, *inputs, **kwargs)
        result = self._layer[0](hidden, *inputs, **(kwargs | {"prev_topk_indices": self.selection}))
        self.selection = result[1]
        return result


class _Catcher(nn.Module):
    """Keeps what it is called with. Returns negative zeros: the one number that changes nothing it is added to.

    beside: something comes beside them, which nobody looks at.
    """

    def __init__(self, beside: bool = False) -> None:
        super().__init__()
        self._beside = beside
        self.x: Tensor | None = None
        self.rest: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor, *rest: Tensor, **_: Any) -> Any:
        self.x, self.rest = x, rest
        nothing = torch.full_like(x, -0.0)
        return (nothing, None) if self._beside else nothing


class _Nothing(nn.Module):
    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return torch.zeros_like(x)


class _Given(nn.Module):
    """Returns what was computed elsewhere."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.result


FINAL_NORMS = ("norm", "norm_f")


def _block_name(layer: Any) -> str:
    """Of the block that may have experts: `mlp`, Llama 4's `feed_forward`, or `mixer` where a layer has one block
    only."""
    return next((name for name in ("mlp", "feed_forward") if hasattr(layer, name)), "mixer")


def _share(rotary: nn.Module, layers: nn.Module) -> None:
    """Put the model's rotary tables in the place of a layer's own, as no part of what is filled and emptied."""
    for module in list(layers.modules()):
        for name in [name for name, child in module.named_children() if type(child) is type(rotary)]:
            del module._modules[name]
            object.__setattr__(module, name, rotary)


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
        linear.module.register_forward_pre_hook(lambda _, args, name=name: look(name, args[0]))
        for name, linear in linears.items()
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
