"""The quantization block of a checkpoint, read: flat in config.json, under `quantization` in hf_quant_config.json.

Nothing is believed here and nothing judged: a value may be of any type, and what a caller makes of a wrong one (an
error, a finding, a guess) is the caller's. Sources for the keys: nvidia-modelopt 0.47 unified export,
compressed-tensors 0.12, transformers 5.23 `FineGrainedFP8Config`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from halfbyte.errors import CheckpointError

CONFIG_KEY, NESTED_KEY = "quantization_config", "quantization"
EXCLUSION_KEYS = ("ignore", "exclude_modules", "modules_to_not_convert")
"""What the list of unquantized modules is called: compressed-tensors and ModelOpt's flat form, its nested form,
transformers."""

MODELOPT, COMPRESSED_TENSORS = "modelopt", "compressed-tensors"


class Statement(NamedTuple):
    """A value and the key under which it stands, dotted."""

    key: str
    value: Any


class QuantizationBlock:
    """stated: the mapping as it stands in the file."""

    def __init__(self, stated: Mapping[str, Any]) -> None:
        self.stated = stated

    @classmethod
    def merged(cls, stated: Mapping[str, Any]) -> "QuantizationBlock":
        """Of a mapping in either form: what stands under `quantization` counts over what stands beside it."""
        nested = stated.get(NESTED_KEY)
        return cls({**stated, **nested} if isinstance(nested, dict) else stated)

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> "QuantizationBlock | None":
        """The block of config.json, None without one. Raises CheckpointError if it is no object."""
        stated = config.get(CONFIG_KEY)
        if not stated:
            return None
        if not isinstance(stated, dict):
            raise CheckpointError(f"config.json: {CONFIG_KEY} is {str(stated)[:80]!r}, wanted an object")
        return cls(stated)

    @property
    def method(self) -> Any:
        return self.stated.get("quant_method")

    @property
    def algorithm(self) -> Any:
        return self.stated.get("quant_algo")

    @property
    def exclusions(self) -> Statement | None:
        """The list of unquantized modules, under whichever of its names; None if there is none."""
        for key in EXCLUSION_KEYS:
            if self.stated.get(key) is not None:
                return Statement(key, self.stated[key])
        return None

    @property
    def excluded(self) -> list[str] | None:
        """`exclusions` where they are a list of text; None otherwise."""
        found = self.exclusions
        return found.value if found is not None and is_list_of_text(found.value) else None

    @property
    def groups(self) -> Mapping[str, Any]:
        """`config_groups`; empty where there are none, or no mapping."""
        groups = self.stated.get("config_groups")
        return groups if isinstance(groups, dict) else {}

    @property
    def has_sound_groups(self) -> bool:
        """Whether `config_groups`, if stated, are a mapping of mappings."""
        groups = self.stated.get("config_groups") or {}
        return isinstance(groups, dict) and all(isinstance(group, dict) for group in groups.values())

    def parts(self, *names: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The descriptions that the groups give of `weights`, `input_activations`, ...: dotted key and mapping."""
        for name, group in self.groups.items():
            for part in names if isinstance(group, dict) else ():
                if isinstance(group.get(part), dict):
                    yield f"config_groups.{name}.{part}", group[part]

    def group_sizes(self, *names: str) -> Iterator[Statement]:
        """Every group size stated: the block's own, then those of the parts named."""
        for key, stated in (("", self.stated), *((f"{key}.", part) for key, part in self.parts(*names))):
            if "group_size" in stated:
                yield Statement(f"{key}group_size", stated["group_size"])

    def quantizes_activations(self, if_absent: bool) -> bool:
        """Whether any group has `input_activations`. if_absent: what a group says that does not mention them.

        vLLM takes groups whose `input_activations` are all null for weight-only, whatever the algorithm's name says.
        """
        for group in self.groups.values():
            if not isinstance(group, dict):
                return True
            if group["input_activations"] is not None if "input_activations" in group else if_absent:
                return True
        return not self.groups


def is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
