"""`halfbyte.runtime` is the only import with a side effect: it tells transformers about the loader."""

import json
import subprocess
import sys

PROGRAM = """
import importlib, json, pkgutil
import transformers
from transformers.quantizers import auto
from transformers.models.auto import configuration_auto, modeling_auto
import halfbyte

def registries():
    return [sorted(auto.AUTO_QUANTIZER_MAPPING), sorted(auto.AUTO_QUANTIZATION_CONFIG_MAPPING),
            len(auto.LOADING_ATTRIBUTES_CONFIG_TYPES), sorted(configuration_auto.CONFIG_MAPPING.keys()),
            len(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING._extra_content)]

before, done, failed = registries(), 0, []
def walk(package):
    global done
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name in ("halfbyte.runtime", "halfbyte.__main__"):
            continue
        try:
            found = importlib.import_module(module.name)
        except ImportError as error:
            failed.append(f"{module.name}: {error}")
            continue
        done += 1
        if module.ispkg:
            walk(found)
walk(halfbyte)
between = registries()
import halfbyte.runtime
after = registries()
print(json.dumps({"same": before == between, "registers": "modelopt" in after[0], "was": "modelopt" in before[0],
                  "done": done, "failed": failed}))
"""


def test_importing_anything_else_changes_no_registry() -> None:
    """What needs a GPU's compiler may be missing."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=250)
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["same"]
    assert found["registers"]
    assert not found["was"]
    assert found["done"] > 200
    assert all("triton" in line or "humming" in line for line in found["failed"]), found["failed"]
