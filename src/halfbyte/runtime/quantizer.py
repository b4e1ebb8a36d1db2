"""The plug-in: `quant_method: modelopt` of a config.json makes transformers build and load packed modules.

The order of events in `from_pretrained`: the model is built on the meta device; `_process_model_before_weight_loading`
reads the headers of the shards, asks the exclusions which linears are quantized, puts packed modules in their place
and compares what they want with what the files hold; transformers then loads each tensor straight into its parameter;
`_process_model_after_weight_loading` checks the scales and chooses the back end.
"""

from typing import Any

from torch import nn
from transformers.quantizers.base import HfQuantizer

from halfbyte.errors import UnsupportedError
from halfbyte.formats.nvfp4.torch import check_positive, check_scales
from halfbyte.models import roles_of
from halfbyte.models.role_map import RoleMap
from halfbyte.runtime.backends import choose
from halfbyte.runtime.conversion import with_scales
from halfbyte.runtime.files import open_files
from halfbyte.runtime.manifest import check_files
from halfbyte.runtime.options import Options
from halfbyte.runtime.packed import Backend, PackedModule
from halfbyte.runtime.replace import replace_modules
from halfbyte.runtime.runtime import Runtime, logger


class ModelOptQuantizer(HfQuantizer):
    """Loads NVFP4 checkpoints in ModelOpt's layout; quantizes nothing itself."""

    requires_calibration = True  # only pre-quantized checkpoints

    quantization_config: Any  # a ModelOptConfig

    def __init__(self, quantization_config: Any, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        options = Options.resolve(quantization_config.backend, quantization_config.activations)
        self.runtime = Runtime[Backend](quantization_config.algorithm(), options)
        self._parameters: set[str] = set()

    def validate_environment(self, *_: Any, device_map: Any = None, **__: Any) -> None:
        if isinstance(device_map, dict) and "disk" in device_map.values():
            raise UnsupportedError("NVFP4 modules cannot be offloaded to disk", hint="give a device_map without it")

    def _process_model_before_weight_loading(self, model: Any, checkpoint_files: Any = None, **_: Any) -> None:
        checkpoint = open_files(checkpoint_files)
        with checkpoint:
            roles = roles_of(checkpoint.config or model.config.to_dict())
            exclusions = self.quantization_config.exclusions()
            replaced = replace_modules(model, roles, exclusions, self.runtime)
            self._parameters = {name for name, _ in model.named_parameters()}
            if not replaced:
                raise UnsupportedError("the exclusions of this checkpoint leave nothing quantized")
            if checkpoint.tensors:
                check_files(model, self, roles, exclusions, checkpoint)
            _expect_no_mtp(model, roles)

    def update_weight_conversions(self, weight_conversions: list[Any], *_: Any, **__: Any) -> list[Any]:
        return with_scales(weight_conversions, self._parameters)  # older releases of transformers pass no model here

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        packed = packed_modules(model)
        for path, module in packed.items():
            for name, parameter in module.named_parameters(recurse=False):
                where = f"{path}.{name}"
                if name.endswith("input_scale") or name.endswith("_scale_2"):
                    check_positive(where, parameter)
                elif name.endswith("_scale"):
                    check_scales(where, parameter)
        start(model, self.runtime)
        return model

    def is_serializable(self) -> bool:
        """Whether the parameters are still the file's bytes: a back end that rearranges them keeps no copy."""
        return not self.runtime.backend.rearranges

    @property
    def is_trainable(self) -> bool:
        return False


def _expect_no_mtp(model: Any, roles: RoleMap) -> None:
    """transformers knows the published numbers of MTP layers only (78, 61, 92); check_files has reported them all."""
    layers = {rf"model\.layers\.{roles.layers + i}\." for i in range(roles.mtp_layers)}
    model._keys_to_ignore_on_load_unexpected = set(model._keys_to_ignore_on_load_unexpected or ()) | layers


def packed_modules(model: nn.Module) -> dict[str, PackedModule]:
    """Path -> packed module of a model."""
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedModule)}


def start(model: nn.Module, runtime: Runtime[Backend]) -> None:
    """Choose the back end for where the weights lie now, prepare it and say so.

    One that has rearranged the weights stays: it alone can read them.
    """
    packed = packed_modules(model)
    if runtime.started and runtime.backend.rearranges:
        runtime.start(runtime.backend, runtime.reason)
    else:
        backend, reason = choose(runtime.options.backend, packed)
        runtime.start(backend, reason)
        backend.prepare(packed)
    logger.warning("%d NVFP4 module(s): %s", len(packed), runtime.describe())
