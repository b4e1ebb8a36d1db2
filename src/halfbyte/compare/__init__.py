"""What a candidate lost against its baseline, token by token, both streamed from disk in one pass (extra `[torch]`)."""

from halfbyte.compare.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
