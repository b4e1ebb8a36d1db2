"""The scales that are tried for a block, around the max rule's."""

import numpy as np

from halfbyte.formats.nvfp4.format import E4M3

SCALES_BELOW = 8
SCALES_TRIED = 16

STEPS = E4M3[:128].copy()
RECIPROCALS = np.divide(np.float32(1), STEPS, out=np.zeros_like(STEPS), where=STEPS > 0)
