"""Record what llama.cpp's own converter writes for the checkpoints of `checkpoints.py`, as hashes, in llamacpp.json.

    pip download --no-binary llama-cpp-python --no-deps llama-cpp-python      # its vendor/ holds llama.cpp
    python tests/export/checkpoints.py CHECKPOINTS                            # in Halfbyte's environment
    python tests/export/record_llamacpp.py --llama-cpp VENDOR/llama.cpp --checkpoints CHECKPOINTS

The last line needs an environment with torch, transformers and sentencepiece; nothing of llama.cpp is kept. Two things
are set by hand because these tokenizers are not published ones: the name of the splitting rule, which the converter
finds by a hash, and DeepSeek-V3.2's insistence on a tokenizer class that says `add_bos_token`.
"""

import argparse
import base64
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SPLITTING_RULES = {
    "glm_moe_dsa": "glm4",
    "glm4_moe": "glm4",
    "deepseek_v3": "deepseek-v3",
    "deepseek_v32": "deepseek-v3",
    "kimi_k2": "kimi-k2",
    "glm4_moe_lite": "glm4",
    "qwen3_moe": "qwen2",
    "minimax_m2": "minimax-m2",
}


class Tiktoken:
    """As much of Kimi's own tokenizer class, which is remote code, as the converter looks at."""

    def __init__(self, folder: Path) -> None:
        lines = [line.split() for line in (folder / "tiktoken.model").read_bytes().splitlines()]
        self.model, self._mergeable_ranks = self, {base64.b64decode(token): int(rank) for token, rank in lines}
        named = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
        numbers = range(len(lines), len(lines) + 256 + 2)
        self.special_tokens = {
            named[str(i)]["content"] if str(i) in named else f"<|reserved_token_{i}|>": i for i in numbers
        }


def convert(checkpoint: Path, out: Path) -> None:
    """Run convert_hf_to_gguf.main on one folder. Its module is found on sys.path."""
    import conversion.base
    import conversion.deepseek
    import convert_hf_to_gguf
    import pytest
    import transformers

    model_type = json.loads((checkpoint / "config.json").read_text())["model_type"]
    conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: SPLITTING_RULES[model_type]
    conversion.deepseek.DeepseekV32Model.set_vocab = lambda self: self._set_vocab_gpt2()
    sys.argv = ["convert_hf_to_gguf.py", str(checkpoint), "--outfile", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        if (checkpoint / "tiktoken.model").exists():
            patch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda folder, **_: Tiktoken(Path(folder)))
        convert_hf_to_gguf.main()


def fingerprint(path: Path, gguf: Any) -> dict[str, Any]:
    """All keys (long arrays as hashes) and all tensors (type, shape, SHA-256) of one GGUF."""
    reader = gguf.GGUFReader(path)
    keys = {
        name: [[kind.name for kind in entry.types], _short(entry.contents())]
        for name, entry in sorted(reader.fields.items())
        if not name.startswith("GGUF.")
    }
    tensors = {
        tensor.name: [
            tensor.tensor_type.name,
            [int(side) for side in reversed(tensor.shape.tolist())],
            hashlib.sha256(tensor.data.tobytes()).hexdigest(),
        ]
        for tensor in sorted(reader.tensors, key=lambda tensor: tensor.name)
    }
    return {"keys": keys, "tensors": tensors}


def _short(value: Any) -> Any:
    if isinstance(value, list | str) and len(value) > 64:
        return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-cpp", type=Path, required=True, help="llama.cpp's source folder")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder made by checkpoints.py")
    parser.add_argument("--out", type=Path, default=HERE / "llamacpp.json")
    parser.add_argument("--version", default="llama-cpp-python 0.3.36", help="where the converter came from")
    arguments = parser.parse_args()
    sys.path[:0] = [str(arguments.llama_cpp), str(arguments.llama_cpp / "gguf-py")]
    import gguf
    import torch
    import transformers

    recorded: dict[str, Any] = {
        "source": arguments.version,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "cases": {},
    }
    for checkpoint in sorted(arguments.checkpoints.iterdir()):
        if not (checkpoint / "config.json").exists() or checkpoint.name.endswith("-source"):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            convert(checkpoint, Path(scratch) / "converted.gguf")
            recorded["cases"][checkpoint.name] = fingerprint(Path(scratch) / "converted.gguf", gguf)
    arguments.out.write_text(json.dumps(recorded, indent=0, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
