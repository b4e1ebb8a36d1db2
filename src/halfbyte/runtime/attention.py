"""The sparse attention, where users of `halfbyte.runtime` look for it; it lives in `halfbyte.modules.attention`."""

from halfbyte.modules.attention import AttentionOptions, LatentCache, install, uninstall

__all__ = ["AttentionOptions", "LatentCache", "install", "uninstall"]
