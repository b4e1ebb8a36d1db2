"""`quantization_config` of a ModelOpt checkpoint, as transformers hands it over.

Facts of the checkpoint (`quant_algo`, `ignore`, ...) come from config.json. The two run-time options may be given to
`from_pretrained(..., quantization_config=ModelOptConfig(backend=..., activations=...))`; transformers merges them into
the checkpoint's own config. They are never saved.
"""

from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from halfbyte.checkpoint.modelopt import Algorithm
from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.runtime.options import Options

RUNTIME_KEYS = ("backend", "activations")
ALGORITHMS: dict[str, Algorithm] = {"NVFP4": "NVFP4", "W4A16_NVFP4": "W4A16_NVFP4"}


class ModelOptConfig(QuantizationConfigMixin):
    """The flat form of config.json, or its nested form (`quantization`, as in hf_quant_config.json).

    stored: the mapping as read, which `to_dict` gives back unchanged, so that saving keeps every key.
    """

    def __init__(self, backend: str | None = None, activations: str | None = None, **stored: Any) -> None:
        self.quant_method = "modelopt"  # type: ignore[assignment]  # a plug-in is not in the enumeration
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

    def _facts(self) -> dict[str, Any]:
        nested = self.stored.get("quantization")
        return self.stored | nested if isinstance(nested, dict) else self.stored

    def algorithm(self) -> Algorithm:
        """What the checkpoint holds. Raises UnsupportedError for any other algorithm than NVFP4, weight-only or not."""
        facts = self._facts()
        name = facts.get("quant_algo")
        algorithm = ALGORITHMS.get(name) if isinstance(name, str) else None
        if algorithm is None:
            raise UnsupportedError(
                f"config.json: quant_algo is {str(name)[:80]!r}, halfbyte.runtime loads {' and '.join(ALGORITHMS)}",
                hint="serve FP8 and mixed checkpoints with vLLM or SGLang",
            )
        sizes = [("group_size", facts.get("group_size", BLOCK_SIZE))]
        groups = facts.get("config_groups") or {}
        if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
            raise CheckpointError("config.json: quantization_config.config_groups is not a mapping of mappings")
        for group_name, group in groups.items():
            for part in ("weights", "input_activations"):
                described = group.get(part)
                if isinstance(described, dict):
                    sizes.append((f"config_groups.{group_name}.{part}.group_size", described.get("group_size", 16)))
        for key, size in sizes:
            if size != BLOCK_SIZE:
                raise UnsupportedError(f"config.json: {key} is {str(size)[:80]!r}, NVFP4 has {BLOCK_SIZE}")
        weight_only = bool(groups) and all(group.get("input_activations") is None for group in groups.values())
        return "W4A16_NVFP4" if weight_only else algorithm  # vLLM reads null activations as weight-only too

    def exclusions(self) -> list[str]:
        """Patterns of what is not quantized. Raises CheckpointError if they are not a list of strings."""
        facts = self._facts()
        for key in ("ignore", "exclude_modules", "modules_to_not_convert"):
            entries = facts.get(key)
            if entries is not None:
                if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
                    raise CheckpointError(f"config.json: quantization_config.{key} is not a list of strings")
                return entries
        return []
