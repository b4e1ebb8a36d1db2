"""Shipped files that are used where none is named."""

DEFAULT_RECIPE = "nvfp4-routed-experts"
DEFAULT_POLICY = "default"
