"""NVFP4 checkpoints inside transformers. Importing this registers the loader:

    import halfbyte.runtime
    model = AutoModelForCausalLM.from_pretrained("glm-nvfp4")

Needs the extra `[torch]`. The only import in Halfbyte that changes anything outside of it; `chat` alone makes it, when
a model is loaded.
"""

from halfbyte.runtime.config import ModelOptConfig
from halfbyte.runtime.registration import register
from halfbyte.runtime.use import describe, use

register()

__all__ = ["ModelOptConfig", "describe", "use"]
