"""NVFP4 checkpoints inside transformers. Importing this registers the loader:

    import halfbyte.runtime
    model = AutoModelForCausalLM.from_pretrained("glm-nvfp4")

Needs the extra `[torch]`; nothing else in Halfbyte imports this package.
"""

from halfbyte.runtime.config import ModelOptConfig
from halfbyte.runtime.registration import register
from halfbyte.runtime.use import describe, use

register()

__all__ = ["ModelOptConfig", "describe", "use"]
