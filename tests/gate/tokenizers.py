"""A tokenizer file that is whole, for a vocabulary of any size."""

import json


def tokenizer_for(vocabulary: int) -> str:
    vocab = {f"t{i}": i for i in range(vocabulary)}
    return json.dumps({"model": {"type": "BPE", "vocab": vocab, "merges": []}, "added_tokens": []})
