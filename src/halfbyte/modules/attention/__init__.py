"""Sparse attention that scales, for glm_moe_dsa and deepseek_v32 models in transformers.

    from halfbyte.runtime.attention import install

    install(model)                      # then model(...) and model.generate(...) as before

Chunked index scores with a running top-k, gathered attention on the latent cache. Equal to transformers' eager
attention (its sdpa is wrong with masks); docs/attention.md has the mathematics, the limits and the figures.
"""

from halfbyte.modules.attention.install import install, sparse_attention, uninstall
from halfbyte.modules.attention.latent_cache import LatentCache
from halfbyte.modules.attention.options import AttentionOptions

__all__ = ["AttentionOptions", "LatentCache", "install", "sparse_attention", "uninstall"]
