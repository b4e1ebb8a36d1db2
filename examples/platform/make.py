"""Writes `manifests/` beside this file, as a user would: gate, plan and deploy two checkpoints, one on two pools.

    PYTHONPATH=tests python examples/platform/make.py [OUT]

GLM-5.2-NVFP4 is here by its headers alone, at full size over holes instead of 465 GB of weights; that is all that gate,
plan and deploy read. The small model is examples/tiny-glm, quantized.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from gate.full_size import KINDS, write_full_size

HERE = Path(__file__).parent


def halfbyte(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "halfbyte", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "manifests"
    with tempfile.TemporaryDirectory() as work:
        glm, small = Path(work) / "GLM-5.2-NVFP4", Path(work) / "tiny-nvfp4"
        write_full_size(glm, next(iter(KINDS)))
        halfbyte("quantize", HERE.parent / "tiny-glm", small)
        words: list[object] = []
        for target, gpu, gpus in ((glm, "b200", 8), (glm, "h200", 8), (small, "h200", 4)):
            plan = Path(work) / f"{target.name}.{gpu}.json"
            if not (target / "gate.json").exists():
                halfbyte("gate", target, "--hardware", f"{gpu}x{gpus}")
            halfbyte("plan", target, "--gpu", gpu, "--gpus", gpus, "-o", plan)
            words += ["--also", f"{target}={plan}"] if words else [glm, "--plan", plan]
        halfbyte("deploy", *words, "--platform", HERE / "platform.yaml", "-o", out)


if __name__ == "__main__":
    main()
