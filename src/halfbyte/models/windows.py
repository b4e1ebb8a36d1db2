"""Which layers attend to a window only, as a config says it."""

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.models.config_values import Config, positive

NO_LINEAR = "known: full, sliding-window and latent attention, with or without an indexer"
KINDS = (
    "sliding_attention",
    "full_attention",
    "chunked_attention",
    "indexed_attention",  # transformers' words for DSA: the indexer selects, but everything is kept
    "deepseek_sparse_attention",
)


def windows(
    config: Config, layers: int, unstated: tuple[str, ...] = ("full_attention",), usual: int | None = None
) -> tuple[frozenset[int], int]:
    """Layers with a sliding window, and the window. Raises UnsupportedError for kinds of attention without a model.

    `layer_types` decides. unstated: the kinds of the layers in turn where it is missing. usual: the window where
    `sliding_window` is. Chunked layers count as if they kept everything: an upper bound, and what vLLM does unless
    told otherwise.
    """
    softmax = config.get("attn_type_list") or []
    if not isinstance(softmax, list) or any(kind != 1 for kind in softmax):
        raise UnsupportedError("config.json: attn_type_list has layers without softmax attention", hint=NO_LINEAR)
    kinds = config.get("layer_types")
    if kinds is None:
        if config.get("use_sliding_window") and len(unstated) == 1:
            raise UnsupportedError("config.json: use_sliding_window without layer_types does not say which layers")
        kinds = [unstated[layer % len(unstated)] for layer in range(layers)]
    if not isinstance(kinds, list) or len(kinds) < layers:
        raise CheckpointError(f"config.json: layer_types has not one entry for each of {layers} layers")
    for kind in kinds[:layers]:
        if kind not in KINDS:
            raise UnsupportedError(f"config.json: attention of kind {str(kind)[:60]!r} has no model", hint=NO_LINEAR)
    sliding = frozenset(layer for layer in range(layers) if kinds[layer] == "sliding_attention")
    return sliding, positive(config, "sliding_window", usual) if sliding else 0
