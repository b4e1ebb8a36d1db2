"""The back ends and the choice between them: by where the weights lie and what is installed."""

from collections.abc import Mapping

import torch
from torch import nn

from halfbyte.errors import UsageError
from halfbyte.runtime.backends.dequant import DequantBackend
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.options import BackendName
from halfbyte.runtime.packed import Backend

HUMMING_CAPABILITY = (7, 5)


def choose(name: BackendName, packed: Mapping[str, nn.Module]) -> tuple[Backend, str]:
    """The back end of that name, and why. Raises UsageError if a named one cannot run here; `auto` falls back, and
    the reason says so."""
    devices = {parameter.device for module in packed.values() for parameter in module.parameters()}
    if name == "reference":
        return ReferenceBackend(), "as asked"
    if name == "dequant":
        return DequantBackend(), "as asked"
    obstacle = humming_obstacle(devices)
    if obstacle is None:
        from halfbyte.runtime.backends.humming import HummingBackend

        return HummingBackend(), "as asked" if name == "humming" else "CUDA and humming-kernels are there"
    if name == "humming":
        raise UsageError(f"back end humming cannot run: {obstacle}", hint="use backend=dequant")
    return DequantBackend(), f"not humming: {obstacle}"


def humming_obstacle(devices: set[torch.device]) -> str | None:
    """What keeps humming-kernels from running on these devices; None if nothing does."""
    kinds = {device.type for device in devices}
    if kinds != {"cuda"}:
        return f"the weights lie on {', '.join(sorted(kinds))}, it needs CUDA"
    for device in devices:
        capability = torch.cuda.get_device_capability(device)
        if capability < HUMMING_CAPABILITY:
            wanted = ".".join(map(str, HUMMING_CAPABILITY))
            return f"{torch.cuda.get_device_name(device)} has capability {capability[0]}.{capability[1]}, not {wanted}"
    try:
        import humming.layer  # noqa: F401
    except ImportError as error:
        return f"humming-kernels cannot be imported ({error}); pip install 'halfbyte[cuda]'"
    return None
