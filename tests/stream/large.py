"""A glm_moe_dsa checkpoint of any size, cheap to make: files of holes with random weights where they matter."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from families.headers import headers_for, variant
from small import small_config

from halfbyte.checkpoint.header import serialize_header
from halfbyte.formats.dtypes import DTYPE_BYTES


def sparse_checkpoint(folder: Path, **sizes: Any) -> int:
    """Write it and return its bytes. All but most experts' weights are random; three experts of a layer are too."""
    config = small_config("GLM-5.2") | {"num_key_value_heads": 4, "num_nextn_predict_layers": 0} | sizes
    entries = []
    for name, (dtype, shape) in headers_for(config, variant("GLM-5.2")).items():
        entries.append((name, dtype, shape, int(np.prod(shape)) * DTYPE_BYTES[dtype]))
    folder.mkdir(parents=True)
    header = serialize_header(entries, {})
    random = np.random.default_rng(0)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(header)
        at = len(header)
        for name, dtype, shape, size in entries:
            number = name.partition(".experts.")[2].partition(".")[0]
            if dtype == "BF16" and (not number or int(number) < 3):
                file.seek(at)
                scale = 0.02 if len(shape) > 1 else 0.1
                values = random.standard_normal(shape, np.float32) * scale + (len(shape) == 1)
                file.write(values.astype(ml_dtypes.bfloat16).tobytes())
            at += size
        file.truncate(at)
    (folder / "config.json").write_text(json.dumps(config))
    return at - len(header)


def token_file(path: Path, lengths: list[int], vocabulary: int) -> Path:
    """Rows of input_ids."""
    random = np.random.default_rng(1)
    rows = [json.dumps({"input_ids": random.integers(0, vocabulary, length).tolist()}) for length in lengths]
    path.write_text("\n".join(rows))
    return path
