"""Fuzz everything that reads a file of a downloaded checkpoint before its weights: shard header, index, config.json.

Not run by pytest. By hand, one process, seeds and dictionary included:

    .venv/bin/pip install atheris
    .venv/bin/python tests/fuzz/fuzz_header.py -max_total_time=300 -timeout=10 -rss_limit_mb=2048 -max_len=4096

The first byte of an input picks the reader, the rest is the file. Whatever the bytes, a reader answers or raises an
error of the family in `halfbyte.errors`, whose message can be printed; anything else is a finding, which libFuzzer
leaves in `crash-*`; `fuzz_header.py crash-...` repeats it.
"""

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["halfbyte.checkpoint"]):
    from halfbyte.checkpoint.header import header_length, parse_header, serialize_header
    from halfbyte.checkpoint.index import INDEX_NAME
    from halfbyte.checkpoint.json_file import read_json
    from halfbyte.checkpoint.source import Checkpoint
    from halfbyte.errors import HalfbyteError
    from halfbyte.models import roles_of

GLM = {
    "model_type": "glm_moe_dsa",
    "num_hidden_layers": 4,
    "n_routed_experts": 2,
    "num_nextn_predict_layers": 1,
    "first_k_dense_replace": 1,
    "index_topk_freq": 2,
    "index_skip_topk_offset": 2,
}
QWEN = {"model_type": "qwen3_moe", "num_hidden_layers": 2, "num_experts": 2, "mlp_only_layers": [0]}
CONFIGS = [
    GLM,
    GLM | {"indexer_types": ["full", "shared"] * 2, "mlp_layer_types": ["dense", "sparse"] * 2},
    GLM | {"index_topk_pattern": "FFSS", "moe_layer_freq": 1},
    QWEN | {"decoder_sparse_step": 1},
    {"model_type": "minimax_m2", "num_hidden_layers": 2, "num_local_experts": 2, "num_mtp_modules": 3},
]
SHARDS: dict[str, list[tuple[str, str, tuple[int, ...], int]]] = {
    "a.safetensors": [("x", "U8", (2,), 2), ("y", "BF16", (), 2)],
    "b.safetensors": [("z", "F32", (1, 1), 4)],
}
INDEX = {
    "metadata": {"total_size": 8},
    "weight_map": {"x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"},
}
TOKENS = [
    "dtype",
    "shape",
    "data_offsets",
    "__metadata__",
    "weight_map",
    "[0,4]",
    "9223372036854775808",
    "1e0",
    "\\\\ud800",
]

FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
ROOT = Path(FOLDER.name)


def read_shard(content: bytes) -> None:
    length = header_length(content[:8], len(content), "f")
    tensors = parse_header(content[8 : 8 + length], len(content), "f").tensors.values()
    assert sum(tensor.bytes for tensor in tensors) == len(content) - 8 - length


def read_header_text(content: bytes) -> None:
    """As `read_shard`, but the length is right and four bytes of data follow, so that mutation reaches deeper."""
    read_shard(len(content).to_bytes(8, "little") + content + bytes(4))


def read_index(content: bytes) -> None:
    (ROOT / INDEX_NAME).write_bytes(content)
    Checkpoint.open(ROOT).close()


def read_config(content: bytes) -> None:
    (ROOT / "some.json").write_bytes(content)
    roles = roles_of(read_json(ROOT / "some.json"))
    for layer in (0, roles.layers - 1, roles.layers):
        for name in ("mlp.experts.0.up_proj", "self_attn.indexer.wk", "mlp.gate_proj", "eh_proj"):
            try:
                roles.role(f"model.layers.{layer}.{name}.weight")
            except HalfbyteError:
                continue


READERS = (read_shard, read_header_text, read_index, read_config)


def test_one_input(data: bytes) -> None:
    message = ""
    try:
        READERS[data[0] % len(READERS) if data else 0](data[1:])
    except HalfbyteError as error:
        message = error.message.replace(str(ROOT), "")
    assert message.isprintable(), message
    assert len(message) < 2000, message


def write_inputs(corpus: Path, dictionary: Path) -> None:
    """Shards and config.json that the index belongs to, the seeds, and the words of the formats."""
    (ROOT / "config.json").write_text(json.dumps(GLM))
    shards = {name: serialize_header(tensors, {"format": "pt"}) + bytes(4) for name, tensors in SHARDS.items()}
    for name, content in shards.items():
        (ROOT / name).write_bytes(content)
    one = {"t": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}
    seeds = [(0, content) for content in shards.values()] + [(1, one), (2, INDEX)] + [(3, config) for config in CONFIGS]
    corpus.mkdir()
    for number, (reader, seed) in enumerate(seeds):
        content = seed if isinstance(seed, bytes) else json.dumps(seed).encode()
        (corpus / f"seed-{number}").write_bytes(bytes([reader]) + content)
    words = {*TOKENS, *SHARDS, *(key for config in CONFIGS for key in config)}
    dictionary.write_text("".join(f'"{word}"\n' for word in sorted(words)))


def main() -> None:
    corpus, dictionary = ROOT / "corpus", ROOT / "words.dict"
    write_inputs(corpus, dictionary)
    atheris.Setup([*sys.argv, f"-dict={dictionary}", str(corpus)], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
