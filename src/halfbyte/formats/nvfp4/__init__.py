"""The NVFP4 number format: plain reference, fast CPU codec."""
