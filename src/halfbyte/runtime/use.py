"""Change the options of a loaded model, and say what it runs on."""

from torch import nn

from halfbyte.errors import UsageError
from halfbyte.runtime.options import Options
from halfbyte.runtime.packed import Backend
from halfbyte.runtime.quantizer import packed_modules, start
from halfbyte.runtime.runtime import Runtime


def runtime_of(model: nn.Module) -> Runtime[Backend]:
    for module in packed_modules(model).values():
        return module.runtime
    raise UsageError("this model holds no NVFP4 modules", hint="load it from a directory made by `halfbyte quantize`")


def use(model: nn.Module, backend: str | None = None, activations: str | None = None) -> None:
    """Switch back end or activation mode; what is not given stays. Also call it after `model.to(device)`.

    Raises UsageError for unknown words and for leaving a back end that has rearranged the weights.
    """
    runtime = runtime_of(model)
    options = Options.resolve(backend or runtime.options.backend, activations or runtime.options.activations)
    if runtime.backend.rearranges and options.backend not in ("auto", runtime.backend.name):
        raise UsageError(
            f"back end {runtime.backend.name} has rearranged the weights; load the model again to use {options.backend}"
        )
    before, runtime.options = runtime.options, options
    try:
        start(model, runtime)
    except Exception:
        runtime.options = before
        raise


def describe(model: nn.Module) -> str:
    """One line: algorithm, back end, why it was chosen, activation mode."""
    return runtime_of(model).describe()
