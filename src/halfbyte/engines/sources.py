"""The chapters of docs/engines.md, where terms and findings say that their formulas come from."""

LOADING = "docs/engines.md 3"
KERNELS = "docs/engines.md 4"
WEIGHTS = "docs/engines.md 5"
CACHE = "docs/engines.md 6"
BUFFERS = "docs/engines.md 8"
