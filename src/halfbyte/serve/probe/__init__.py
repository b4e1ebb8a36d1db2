"""`probe`: whether a running engine computes what the checkpoint says."""
