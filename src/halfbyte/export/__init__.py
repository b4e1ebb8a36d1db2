"""Checkpoints as GGUF for llama.cpp, losslessly: codes and block scales rearranged, never requantized."""

from halfbyte.export.gguf import Exported, export
from halfbyte.export.lossy import KEY as LOSSY_KEY
from halfbyte.export.verify import Verified, verify_gguf

__all__ = ["LOSSY_KEY", "Exported", "Verified", "export", "verify_gguf"]
