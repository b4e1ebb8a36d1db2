"""GLM-4.7-Flash: DeepSeek-V3's attention and experts under GLM's names, one dense layer, one MTP layer.

Sources: transformers 5.23 `models/glm4_moe_lite` (Glm4MoeLiteConfig's defaults are the published sizes).
"""

from halfbyte.models import deepseek_v3
from halfbyte.models.family import Known, Support

FAMILY = deepseek_v3.FAMILY.but(
    model_type="glm4_moe_lite",
    engines={
        "vllm": Support(
            file="glm4_moe_lite",
            asks_router=False,
            router_known=Known("read", "vLLM main, glm4_moe_lite.py: its MoE is Glm4MoE of glm4_moe.py"),
        ),
        "sglang": Support(
            file="glm4_moe_lite",
            asks_router=False,
            router_known=Known("read", "SGLang main, glm4_moe_lite.py: the router is a plain parameter"),
        ),
    },
)
