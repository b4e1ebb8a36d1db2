"""`input_scale` of every quantized linear: a constant, or calibrated activation amax from a file.

Engines divide activations by it before rounding them to four bits: input_scale = amax / 2688, and 2688 * input_scale
is the largest activation that does not clip. The data-free constant 1 (amax 2688, as NVIDIA's own recipes use for
experts) loads everywhere. The seam for calibration: whatever computes amax writes the file described at `from_file`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from halfbyte.checkpoint.header import header_length, parse_header
from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.disk import is_missing, read_regular
from halfbyte.errors import CheckpointError, InputScaleError, said
from halfbyte.evidence.calibration import CALIBRATION_KEY, Calibration
from halfbyte.formats.dtypes import F32
from halfbyte.formats.nvfp4.format import AMAX_TO_SCALE_2
from halfbyte.models.role_map import LAYERS
from halfbyte.models.roles import TensorRole
from halfbyte.validation import first_fault

DEFAULT_INPUT_SCALE = "1"
_AMAX_ENDINGS = (".weight", ".input_amax", ".amax", ".input_quantizer._amax", ".input_quantizer.amax")


@dataclass(frozen=True)
class InputScales:
    """Answers `input_scale` for a linear. `description` goes into evidence, card and printed result.

    calibration: what the file says of its own making, for the evidence.
    """

    description: str
    constant: np.float32 | None = None
    scales: Mapping[str, np.float32] = field(default_factory=dict)
    sha256: str | None = None
    calibration: Calibration | None = None

    @property
    def warnings(self) -> list[str]:
        """What the calibration found that a user should hear: thin coverage, inputs too wide for the format."""
        return self.calibration.warnings if self.calibration is not None else []

    def of(self, role: TensorRole, group: tuple[str, ...]) -> np.float32:
        """float32 scale for one linear.

        group: names of all linears that read the same input and share the scale (gate_proj and up_proj). Looked up
        most specific first: the linear, its layer's projection group, its layer. If the members of a group were
        calibrated apart, the larger value serves all of them, as engines would reduce it anyway.
        Raises InputScaleError naming the linear if nothing covers it.
        """
        if self.constant is not None:
            return self.constant
        own = [self.scales[name] for name in group if name in self.scales]
        if own:
            if len(own) != len(group):
                raise InputScaleError(f"{self.description}: has a value for only part of {', '.join(group)}")
            return max(own)
        for name in _wider_names(role):
            if name in self.scales:
                return self.scales[name]
        raise InputScaleError(
            f"{self.description}: no value for {role.module}",
            hint=f"give one for the linear, or for {', '.join(_wider_names(role))}",
        )


def _wider_names(role: TensorRole) -> list[str]:
    """Names that stand for all of a layer's linears of this kind, then for all of the layer."""
    layer, plain = _layer(role), f"{LAYERS}.{role.layer}"
    container = role.module.partition(".experts.")[0] + ".experts" if role.expert is not None else role.module
    container = container if role.expert is not None else container.rpartition(".")[0]
    names = [f"{container}.{role.projection}"]
    if role.projection in ("gate_proj", "up_proj"):
        names.append(f"{container}.gate_up_proj")
    return [*names, container, layer, *([plain] if plain != layer else [])]


def _layer(role: TensorRole) -> str:
    """Path of its decoder layer."""
    head, marker, _ = role.module.partition(f".layers.{role.layer}.")
    return head + marker.rstrip(".")


def parse_input_scale(value: str | float | Path) -> InputScales:
    """A positive number, or a file (see `from_file`). Raises InputScaleError."""
    try:
        with np.errstate(over="ignore"):  # too large becomes infinite, which is refused below
            number = np.float32(float(value)) if not isinstance(value, Path) else None
    except ValueError:
        number = None
    if number is None:
        return from_file(Path(value))  # type: ignore[arg-type]
    if not (np.isfinite(number) and number > 0):
        raise InputScaleError(said("{input_scale} {value}: wanted a finite number above 0, or a file", value=value))
    return InputScales(f"constant {float(number):g}, not calibrated", constant=number)


def from_file(path: Path) -> InputScales:
    """Calibrated values from a JSON or safetensors file.

    Keys are module paths: of a linear (`model.layers.3.mlp.experts.7.down_proj`), of a layer's projection group
    (`model.layers.3.mlp.experts.gate_up_proj`), of a layer's experts, or of a layer (`model.layers.3`, or just `3`);
    a JSON value may be an object of projections. A value is the amax of the linear's input, unless the key ends in
    `.input_scale`: then it is the scale itself, as stored in a ModelOpt checkpoint. What
    stands under `halfbyte` in a JSON file is not a value but says how they came about.
    """
    if is_missing(path):
        raise InputScaleError(
            said("{input_scale} {path}: cannot be read: no such file", path=path),
            hint=said("give a number, a file, or the rule max or headroom with {calibrate}"),
        )
    content = read_regular(path, JSON_LIMIT_BYTES, InputScaleError)
    calibration = None
    if path.suffix == ".safetensors":
        values = _from_safetensors(content, path)
    else:
        values, calibration = _from_json(content, path)
    scales: dict[str, np.float32] = {}
    for key, value in values.items():
        name, scale = _scale_of(key, value, path)
        scales[name] = max(scale, scales.get(name, scale))
    if not scales:
        raise InputScaleError(f"{path}: holds no values")
    digest = hashlib.sha256(content).hexdigest()
    return InputScales(f"calibrated, {path.name}", scales=scales, sha256=digest, calibration=calibration)


def _scale_of(key: str, value: float, path: Path) -> tuple[str, np.float32]:
    """Module path and float32 input_scale of one entry."""
    divisor = AMAX_TO_SCALE_2
    if key.endswith(".input_scale"):
        key, divisor = key.removesuffix(".input_scale"), np.float32(1)
    for ending in _AMAX_ENDINGS:
        key = key.removesuffix(ending)
    if key.isdigit():
        key = f"{LAYERS}.{key}"
    scale = np.float32(value) / divisor
    if not (np.isfinite(scale) and scale > 0):
        raise InputScaleError(f"{path}: {key} is {value}, wanted a finite number above 0")
    return key, scale


def _from_json(content: bytes, path: Path) -> tuple[dict[str, float], Calibration | None]:
    """Values by key, and how they came about."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputScaleError(f"{path}: not valid JSON: {str(error)[:120]}") from None
    values: dict[str, float] = {}
    about = document.pop(CALIBRATION_KEY, None) if isinstance(document, dict) else None

    def collect(prefix: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, below in node.items():
                key = f"{LAYERS}.{key}" if not prefix and key.isdigit() else key
                collect(f"{prefix}.{key}" if prefix else key, below)
        elif isinstance(node, int | float) and not isinstance(node, bool) and prefix:
            values[prefix] = float(node)
        else:
            raise InputScaleError(f"{path}: {prefix or 'the document'} is {str(node)[:60]!r}, wanted a number")

    try:
        collect("", document)
    except (OverflowError, RecursionError):
        raise InputScaleError(f"{path}: holds numbers or nesting beyond any scale's") from None
    try:
        return values, None if about is None else Calibration.model_validate(about)
    except ValidationError as error:
        raise InputScaleError(f"{path}: {CALIBRATION_KEY}.{first_fault(error, Calibration).message}") from None


def _from_safetensors(content: bytes, path: Path) -> dict[str, float]:
    try:
        length = header_length(content[:8], len(content), str(path))
        tensors = parse_header(content[8 : 8 + length], len(content), str(path)).tensors
    except CheckpointError as error:
        raise InputScaleError(error.message, hint=error.hint) from None
    values = {}
    for name, info in tensors.items():
        if info.dtype != F32 or info.numel != 1:
            raise InputScaleError(f"{path}: {name} is {info.dtype} {list(info.shape)}, wanted one F32")
        values[name] = float(np.frombuffer(content[info.start : info.stop], "<f4")[0])
    return values
