"""Activation statistics by streaming: what `input_scale` should be.

Needs the extra `[torch]`, but for `file`, `histogram`, `shares`, `headroom` and `held_out`.
"""
