"""The headers' name space, held against the index in both directions."""

from halfbyte.checkpoint.header import Header
from halfbyte.checkpoint.source import INDEX_NAME, Tensor, is_shard_name
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import printable


def merge(facts: Facts, headers: dict[str, Header]) -> None:
    """One name space, held against the index in both directions."""
    tensors = facts.tensors
    for shard, header in headers.items():
        for name, (dtype, shape, start, stop) in header.tensors.items():
            if name in tensors:
                message = f"{printable(name)} stands in both {tensors[name].shard} and {shard}"
                facts.problem("integrity.duplicate-tensor", message, tensor=name)
            tensors[name] = Tensor(name, shard, dtype, shape, start, stop)
    weight_map = (facts.index or {}).get("weight_map")
    if not isinstance(weight_map, dict) or weight_map == {name: tensor.shard for name, tensor in tensors.items()}:
        return
    for name, shard in weight_map.items():
        if name not in tensors:
            if shard in headers:
                message = f"{INDEX_NAME}: names {printable(name)}, which {printable(str(shard))} does not hold"
                facts.problem("integrity.index", message, tensor=name)
        elif tensors[name].shard != shard and is_shard_name(shard):
            message = f"{INDEX_NAME}: sends {printable(name)} to {shard}, it lies in {tensors[name].shard}"
            facts.problem("integrity.index", message, tensor=name)
    for name, tensor in tensors.items():
        if name not in weight_map:
            message = f"{INDEX_NAME}: does not name {printable(name)}, which {tensor.shard} holds"
            facts.problem("integrity.index", message, tensor=name)
