"""Kimi K2: DeepSeek-V3's layers with 384 experts, one dense layer, no MTP layer, and a tokenizer of its own.

Published in FP8 blocks (Instruct) or with INT4 experts (Thinking), for DeepSeek-V3's code. Sources: config.json of
Kimi-K2-Instruct and Kimi-K2-Thinking, its tokenization_kimi.py; llama.cpp's conversion/deepseek.py; for the parsers'
names SGLang's function_call_parser.py and the commands of Kimi K2.5's model card.
"""

from dataclasses import replace

from halfbyte.models import deepseek_v3
from halfbyte.models.family import Known, Support
from halfbyte.models.splitting import KIMI

_SAME = "architectures says DeepseekV3ForCausalLM, whose file is deepseek_v2.py"

assert deepseek_v3.FAMILY.llama_cpp is not None

FAMILY = deepseek_v3.FAMILY.but(
    model_type="kimi_k2",
    computed_as="deepseek_v3",
    engines={
        "vllm": Support(
            file="deepseek_v2",
            reasoning_parser="kimi_k2",
            tool_parser="kimi_k2",
            asks_router=False,
            router_known=Known("run", f"vLLM 0.26.0 on one H100; 0.33.0 read: {_SAME}"),
        ),
        "sglang": Support(
            file="deepseek_v2",
            reasoning_parser="kimi_k2",
            tool_parser="kimi_k2",
            asks_router=False,
            router_known=Known("read", f"SGLang 0.5.23: {_SAME}"),
        ),
    },
    llama_cpp=replace(
        deepseek_v3.FAMILY.llama_cpp,
        vocabulary="tiktoken",
        splitting={KIMI: "kimi-k2"},
        beside_towers=True,  # Kimi K2.5: conversion/kimi_vl.py at 32e9e04 writes the tower by itself
    ),
)
