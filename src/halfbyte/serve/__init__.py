"""`serve`: one front door for tenants in front of llama.cpp here, or SGLang and vLLM at scale."""
