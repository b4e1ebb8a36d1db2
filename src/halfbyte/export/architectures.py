"""Which of llama.cpp's architectures a model family is, or a clear no. What is known of each stands with the family."""

from halfbyte.errors import UnsupportedError
from halfbyte.models import FAMILIES
from halfbyte.models.family import Family
from halfbyte.models.llama_cpp import LlamaCpp


def architecture_of(family: Family, beside_towers: bool = False) -> LlamaCpp:
    """Raises UnsupportedError for a family that llama.cpp does not have, or not beside other towers."""
    if family.llama_cpp is None:
        known = [
            name
            for name, other in FAMILIES.items()
            if other.llama_cpp is not None and (other.by_name or other.llama_cpp.beside_towers)
        ]
        why = f": {family.unwritten}" if family.unwritten else ""
        raise UnsupportedError(
            f"model_type {family.model_type!r} cannot be exported: its graph in llama.cpp is not described{why}",
            hint=f"known: {', '.join(known)}",
        )
    if beside_towers and not family.llama_cpp.beside_towers:
        raise UnsupportedError(
            f"{family.model_type}: its text model stands beside other towers, which a GGUF file keeps apart",
            hint="serve it with vLLM or SGLang, or export a checkpoint of the text model alone",
        )
    return family.llama_cpp
