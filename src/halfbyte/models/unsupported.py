"""Families that people ask for and that are not read, each with the reason. Read in transformers 5.23's models; what
SGLang loads of step3p5 in its step3p5.py at 01b5f57 (vLLM's at 01b50b9 takes experts one by one too)."""

REASONS: dict[str, str] = {
    "ernie4_5_vl_moe": "it has two sets of experts, for text and for pictures, of different widths",
    "gemma4_unified": "it is published as Gemma 4 12B, which has no experts",
    "kimi_linear": "its delta attention (KDA) has convolutions and gates that are not described here",
    "nemotron_h_omni": "its text model (nemotron_h) lies beside towers for pictures and sound, whose names are not "
    "described here",
    "nemotron_h_puzzle": "its experts are of another width, and chosen by another number, in each layer",
    "step3p5": "its layers differ in the number of query heads, its attention has a gate of its own (g_proj), and "
    "SGLang loads NVFP4 experts of it only as stacks in which each expert has its scales, a layout not written here",
    "step3p7": "it is step3p5 beside a vision tower, and step3p5 is not read",
}
ALIASES = {
    "gemma4_unified_text": "gemma4_unified",
}


def why_not(model_type: str) -> str | None:
    """Why a family is not read; None for one that nobody has looked at."""
    return REASONS.get(ALIASES.get(model_type, model_type))
