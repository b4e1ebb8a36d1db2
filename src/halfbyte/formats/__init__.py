"""Storage formats of weights: one file or folder each."""
