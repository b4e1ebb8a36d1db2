"""Which parts of a model to make four bits: measured damage of each, the best choice under a size (extra `[torch]`)."""

from halfbyte.search.best_recipe import SearchResult, search

__all__ = ["SearchResult", "search"]
