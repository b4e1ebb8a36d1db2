"""Every command as a Python function, with the command's name and options.

from halfbyte.api import quantize
quantize("GLM-5.2", "glm-nvfp4")
"""

from halfbyte.checkpoint.inspect import Inspection, inspect
from halfbyte.quantize.pipeline import QuantizeResult, quantize
from halfbyte.quantize.verify import Verification, verify

__all__ = ["Inspection", "QuantizeResult", "Verification", "inspect", "quantize", "verify"]
