"""Kimi K2: DeepSeek-V3's layers with 384 experts, one dense layer, no MTP layer.

Published in FP8 blocks (Instruct) or with INT4 experts (Thinking), for DeepSeek-V3's code. Sources: config.json of
Kimi-K2-Instruct and Kimi-K2-Thinking.
"""

from halfbyte.models import deepseek_v3
from halfbyte.models.family import Known, Support

_SAME = "architectures says DeepseekV3ForCausalLM, whose file is"

FAMILY = deepseek_v3.FAMILY.but(
    model_type="kimi_k2",
    engines={
        "vllm": Support(
            file="deepseek_v2",
            asks_router=False,
            router_known=Known("read", f"vLLM 0.33.0: {_SAME} deepseek_v2.py"),
        ),
        "sglang": Support(
            file="deepseek_v2",
            asks_router=False,
            router_known=Known("read", f"SGLang 0.5.23: {_SAME} deepseek_v2.py"),
        ),
    },
)
