"""`quantization_config` of a ModelOpt checkpoint, as transformers hands it over.

Facts of the checkpoint (`quant_algo`, `ignore`, ...) come from config.json. The two run-time options may be given to
`from_pretrained(..., quantization_config=ModelOptConfig(backend=..., activations=...))`; transformers merges them into
the checkpoint's own config. They are never saved.
"""

from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.formats.modelopt import ALGORITHMS, WEIGHT_ONLY, Algorithm
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.runtime.options import Options

RUNTIME_KEYS = ("backend", "activations")


class ModelOptConfig(QuantizationConfigMixin):
    """The flat form of config.json, or its nested form (`quantization`, as in hf_quant_config.json).

    stored: the mapping as read, which `to_dict` gives back unchanged, so that saving keeps every key.
    """

    def __init__(self, backend: str | None = None, activations: str | None = None, **stored: Any) -> None:
        self.quant_method = "modelopt"  # a plug-in is not in the enumeration
        self.backend = backend
        self.activations = activations
        self.stored = {"quant_method": "modelopt"} | stored
        Options.resolve(backend, activations)  # a misspelt word fails here, not after loading

    @classmethod
    def from_dict(
        cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any
    ) -> "ModelOptConfig | tuple[ModelOptConfig, dict[str, Any]]":
        config = cls(**config_dict)
        return (config, kwargs) if return_unused_kwargs else config

    def to_dict(self) -> dict[str, Any]:
        return dict(self.stored)

    def to_diff_dict(self) -> dict[str, Any]:
        return self.to_dict()

    def get_loading_attributes(self) -> dict[str, Any]:
        """What `from_pretrained(quantization_config=...)` may set over the checkpoint's own config."""
        return {key: getattr(self, key) for key in RUNTIME_KEYS if getattr(self, key) is not None}

    def algorithm(self) -> Algorithm:
        """What the checkpoint holds. Raises UnsupportedError for any other algorithm than NVFP4, weight-only or not."""
        block = QuantizationBlock.merged(self.stored)
        algorithm = next((known for known in ALGORITHMS if known == block.algorithm), None)
        if algorithm is None:
            raise UnsupportedError(
                f"config.json: quant_algo is {str(block.algorithm)[:80]!r}, halfbyte.runtime loads "
                + " and ".join(ALGORITHMS),
                hint="serve FP8 and mixed checkpoints with vLLM or SGLang",
            )
        if not block.has_sound_groups:
            raise CheckpointError("config.json: quantization_config.config_groups is not a mapping of mappings")
        for key, size in block.group_sizes("weights", "input_activations"):
            if size != BLOCK_SIZE:
                raise UnsupportedError(f"config.json: {key} is {str(size)[:80]!r}, NVFP4 has {BLOCK_SIZE}")
        return algorithm if block.quantizes_activations(if_absent=False) else WEIGHT_ONLY

    def exclusions(self) -> list[str]:
        """Patterns of what is not quantized. Raises CheckpointError if they are not a list of strings."""
        block = QuantizationBlock.merged(self.stored)
        if block.exclusions is not None and block.excluded is None:
            raise CheckpointError(f"config.json: quantization_config.{block.exclusions.key} is not a list of strings")
        return block.excluded or []
