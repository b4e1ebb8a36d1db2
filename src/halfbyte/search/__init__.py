"""Which parts of a model to make four bits: measured damage of each, the best choice under a size (extra `[torch]`)."""
