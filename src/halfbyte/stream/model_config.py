"""transformers' config of a checkpoint folder, also for a model type that transformers has no classes of."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from halfbyte.checkpoint.json_file import read_json
from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.models import family_of, is_wrapped


def model_config(folder: str | Path) -> Any:
    """The config, quantization included, of the class that computes the model: of the text model alone where it stands
    beside other towers. Raises CheckpointError.

    Remote code is never run: a family whose classes transformers has under another name is read as that one.
    """
    document = read_json(Path(folder) / "config.json")
    try:
        family, text = family_of(document)
    except (CheckpointError, UnsupportedError):
        family, text = None, document
    try:
        if family is not None and is_wrapped(document):
            stated = {key: value for key, value in text.items() if key not in ("model_type", "auto_map")}
            own = document["text_config"].get("model_type", family.model_type)
            return type(AutoConfig.for_model(family.computed_as or own)).from_dict(stated)
        if family is None or family.computed_as is None:
            return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        stated = {key: value for key, value in document.items() if key not in ("model_type", "auto_map")}
        return type(AutoConfig.for_model(family.computed_as)).from_dict(stated)
    except Exception as error:  # transformers' validators raise many kinds, some of other packages
        reason = str(error).strip().partition("\n")[0][:200]
        raise CheckpointError(f"{folder}: transformers cannot read config.json: {reason}") from None


def plain_config(folder: str | Path) -> Any:
    """The same without its quantization."""
    config = model_config(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config
