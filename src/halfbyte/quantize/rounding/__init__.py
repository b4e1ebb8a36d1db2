"""Error-compensating rounding of routed experts (GPTQ on the NVFP4 grid), on the streaming executor. Needs torch."""
