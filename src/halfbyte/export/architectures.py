"""What llama.cpp makes of each model family: its architecture name, and what of a checkpoint it can run. Data only.

Read in llama.cpp (the copy in llama-cpp-python 0.3.36; the prebuilt xllamacpp 2026.10 behaves alike, see
tests/export/test_llamacpp.py). What matters most is `scaled`: NVFP4 needs its per-tensor `.scale` multiplied in by the
model's graph, and a graph that does not know of it runs without a word and computes nonsense. So only those roles are
exported as NVFP4 whose scale the graph applies.
"""

from dataclasses import dataclass

from halfbyte.errors import UnsupportedError
from halfbyte.models.roles import Role

_MLP = frozenset({Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP})


@dataclass(frozen=True)
class Architecture:
    """One model family in llama.cpp.

    name: `general.architecture`. names: member of `gguf.MODEL_ARCH` whose tensor names it uses (gguf 0.19 lacks
    deepseek32, whose tensors are those of glm-dsa). mtp: whether multi-token-prediction layers are loaded; where they
    are not, their tensors are left out. scaled: roles that may be NVFP4. rope_pairs: rows of q_proj and k_proj are
    stored with rotary pairs side by side. vocabulary: "gpt2" (byte-level BPE) or "llama" (SentencePiece).
    """

    name: str
    names: str
    mtp: bool = False
    scaled: frozenset[Role] = frozenset()
    rope_pairs: bool = False
    vocabulary: str = "gpt2"


ARCHITECTURES = {
    "glm_moe_dsa": Architecture("glm-dsa", "GLM_DSA", mtp=True, scaled=_MLP),
    "deepseek_v3": Architecture("deepseek2", "DEEPSEEK2"),
    "deepseek_v32": Architecture("deepseek32", "GLM_DSA", mtp=True, scaled=_MLP),
    "glm4_moe": Architecture("glm4moe", "GLM4_MOE", mtp=True),
    "qwen3_moe": Architecture("qwen3moe", "QWEN3MOE", scaled=frozenset({Role.ROUTED_EXPERT, Role.ATTENTION})),
    "minimax_m2": Architecture("minimax-m2", "MINIMAXM2"),
    "mixtral": Architecture(
        "llama",
        "LLAMA",
        scaled=frozenset({Role.ROUTED_EXPERT, Role.ATTENTION}),
        rope_pairs=True,
        vocabulary="llama",
    ),
}


def architecture_of(model_type: str) -> Architecture:
    """Raises UnsupportedError for a family that llama.cpp does not have."""
    if model_type not in ARCHITECTURES:
        raise UnsupportedError(
            f"model_type {model_type!r} cannot be exported: llama.cpp has no such architecture",
            hint=f"known: {', '.join(ARCHITECTURES)}",
        )
    return ARCHITECTURES[model_type]
