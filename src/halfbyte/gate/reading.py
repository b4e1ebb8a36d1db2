"""From files to facts: config, index, every shard's header, the small files beside them. No weight is read.

What is damaged is noted under the rule that will report it, and reading goes on with the rest: one missing shard must
not hide a pickled payload.
"""

import hashlib
import json
from pathlib import PurePosixPath
from typing import Any

from halfbyte.checkpoint.collection import no_garbage_collection
from halfbyte.checkpoint.files import Files, pooled
from halfbyte.checkpoint.header import Header, parse_header
from halfbyte.checkpoint.index import INDEX_NAME, SINGLE_NAME, Fault, agrees, merged, short_index, weight_map_of
from halfbyte.data.vocabulary import VOCABULARY_FILES
from halfbyte.errors import CheckpointError, HeaderError
from halfbyte.evidence.dossier import Dossier
from halfbyte.evidence.names import DOSSIER
from halfbyte.formats.foreign import refuse_foreign
from halfbyte.formats.modelopt import HF_QUANT_CONFIG
from halfbyte.gate.explain import explain_tensors
from halfbyte.gate.facts import Facts, RuleOptions, ShardFacts
from halfbyte.gate.findings import plural, printable
from halfbyte.progress import Progress
from halfbyte.recipes.policy import Policy

CARDS = ("README.md", "README.source.md")
CODE_CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
"""Where `auto_map` may name code to run."""

SIDE_NAMES = (
    *CARDS,
    *CODE_CONFIGS[1:],
    HF_QUANT_CONFIG,
    DOSSIER,
    *VOCABULARY_FILES,
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "LICENSE-MODEL",
    "pytorch_model.bin.index.json",
)


RULES = {
    "map": "integrity.index",
    "path": "integrity.path",
    "duplicate": "integrity.duplicate-tensor",
    "index": "integrity.index",
}
"""Kind of a fault between index and headers -> the rule that reports it."""


def read_facts(files: Files, policy: Policy, options: RuleOptions, progress: Progress) -> Facts:
    """Everything that rules look at.

    Raises CheckpointError if there is nothing to judge, or the server fails; UnsupportedError if the weights are in a
    format that no rule knows.
    """
    facts = Facts(files, policy, options, progress, listing=files.listing())
    with no_garbage_collection():
        _read_small_files(facts)
        facts.config = _document(facts, "config.json", "integrity.config") or {}
        facts.quant = _document(facts, HF_QUANT_CONFIG, "loadability.metadata")
        facts.evidence = _dossier(facts)
        _read_tensors(facts)
        refuse_foreign(facts.config, facts.tensors, files.where)
        _explain(facts)
    return facts


def _explain(facts: Facts) -> None:
    """A config that our own code trips over must not open the gate, nor hide what the other rules find."""
    try:
        explain_tensors(facts)
    except Exception as error:
        message = (
            f"config.json: cannot be interpreted, please report it: {type(error).__name__}: {printable(str(error))}"
        )
        facts.problem("integrity.config", message, file="config.json")


def _read_small_files(facts: Facts) -> None:
    names = ["config.json", INDEX_NAME, *SIDE_NAMES, facts.policy.supply_chain.signature.file]
    if facts.listing is not None:
        names = [name for name in names if name in facts.listing]
        names += [
            name
            for name in facts.listing
            if PurePosixPath(name).parts[0] == "additional_chat_templates" and name.endswith(".jinja")
        ]
        for name, info in facts.listing.items():
            if info.problem is not None:
                facts.problem("integrity.path", f"{printable(name)} {printable(info.problem)}", file=name)

    def read(name: str) -> bytes | CheckpointError | None:
        try:
            return facts.files.text(name)
        except CheckpointError as error:
            if facts.files.remote:
                raise
            return error

    for name, content in zip(names, pooled(facts.files, read, names), strict=True):
        if isinstance(content, CheckpointError):
            facts.problem("integrity.unreadable", printable(content.message), file=name)
        elif content is not None:
            facts.side[name] = content
            facts.digests[name] = hashlib.sha256(content).hexdigest()


def _document(facts: Facts, name: str, rule: str) -> dict[str, Any] | None:
    """A JSON object. None if the file is missing; damaged, it is noted under `rule`."""
    content = facts.side.get(name)
    if content is None:
        return None
    document, problem = parse_json(content)
    if problem is not None:
        facts.problem(rule, f"{name}: {problem}", file=name)
    return document


def _dossier(facts: Facts) -> Dossier | None:
    """The evidence; None if there is none. Damaged, or not as Halfbyte writes it, it is noted."""
    content = facts.side.get(DOSSIER)
    if content is None:
        return None
    dossier, problem = dossier_of(content)
    if problem is not None:
        facts.problem("integrity.evidence-file", problem, file=DOSSIER)
    return dossier


def dossier_of(content: bytes) -> tuple[Dossier | None, str | None]:
    """(evidence, what is wrong with it), as `parse_json`."""
    document, problem = parse_json(content)
    problem = None if problem is None else f"{DOSSIER}: {problem}"
    if document is None:
        return None, problem
    try:
        return Dossier.of(document, DOSSIER), problem
    except CheckpointError as error:
        return None, printable(error.message, 500)


def parse_json(content: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """(object, what is wrong with it). Duplicate keys are wrong, yet the object is there (the last one wins)."""
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items) and len(twice) < 3:
            keys = [key for key, _ in items]
            twice.extend(sorted({printable(key, 100) for key in keys if keys.count(key) > 1})[:3])
        return found

    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        return None, f"is not valid JSON: {printable(str(error), 200)}"
    if not isinstance(document, dict):
        return None, "is not a JSON object"
    return document, f"holds a key twice: {', '.join(twice)}" if twice else None


def _read_tensors(facts: Facts) -> None:
    """Index and headers. The index's map is kept only where the headers do not agree with it."""
    content = facts.side.pop(INDEX_NAME, None)
    short = short_index(content) if content is not None else None
    if short is not None:
        facts.index, problem = parse_json(short.rest.encode())
        short = short if problem is None else None
    if short is None:
        weight_map = _weight_map(facts, content)
        headers = _read_headers(facts, None if weight_map is None else sorted(set(weight_map.values())))
        _merge(facts, headers, weight_map)
        return
    del content
    headers = _read_headers(facts, sorted(short.sums))
    if not agrees(short.sums, headers):
        _merge(facts, headers, _weight_map(facts, _index_again(facts)))
        return
    facts.tensors = merged(headers, None, INDEX_NAME, lambda fault: _note(facts, fault))
    if len(facts.tensors) != sum(count for count, _ in short.sums.values()):
        _weight_map(facts, _index_again(facts))  # a tensor in two shards, and twice in the index: that is said too


def _index_again(facts: Facts) -> bytes:
    content = facts.files.text(INDEX_NAME) or b""
    if hashlib.sha256(content).hexdigest() != facts.digests[INDEX_NAME]:
        raise CheckpointError(f"{facts.files.place(INDEX_NAME)}: changed while it was read", hint="run the gate again")
    return content


def _weight_map(facts: Facts, content: bytes | None) -> dict[str, str] | None:
    """The index's map, entries that lead nowhere sane taken out; None if there is no index (or no sane one)."""
    if content is None:
        return None
    facts.index, problem = parse_json(content)
    if problem is not None:
        facts.problem("integrity.index", f"{INDEX_NAME}: {problem}", file=INDEX_NAME)
    return None if facts.index is None else weight_map_of(facts.index, INDEX_NAME, lambda fault: _note(facts, fault))


def _merge(facts: Facts, headers: dict[str, Header], weight_map: dict[str, str] | None) -> None:
    """One name space, held against the index in both directions."""
    stated = {} if weight_map is None else (facts.index or {})["weight_map"]

    def note(fault: Fault) -> None:
        if weight_map is None or fault.tensor in weight_map or fault.tensor not in stated:
            _note(facts, fault)  # else the index does name it, only to nowhere, which is noted

    facts.tensors = merged(headers, weight_map, INDEX_NAME, note)


def _note(facts: Facts, fault: Fault) -> None:
    subject = {"file": INDEX_NAME} if fault.tensor is None else {"tensor": fault.tensor}
    facts.problem(RULES[fault.kind], fault.message, **subject)


def _read_headers(facts: Facts, indexed: list[str] | None) -> dict[str, Header]:
    """Headers of all shards that can be read; the rest noted. Holds them against the index and the folder.

    indexed: the shards that the index names; None where there is no index, or no sane one.
    """
    listed = sorted(name for name in facts.listing or () if name.endswith(".safetensors") and "/" not in name)
    if indexed is not None:
        names = indexed
    elif SINGLE_NAME in listed or facts.listing is None:
        names = [SINGLE_NAME]
    else:
        names = listed
    if indexed is None and INDEX_NAME not in facts.digests and listed and names != [SINGLE_NAME]:
        message = f"{plural(len(listed), '.safetensors file')} but no {INDEX_NAME}"
        facts.problem("integrity.index", message, file=INDEX_NAME)
    for name in sorted(set(listed) - set(names)):
        if not name.startswith("consolidated"):
            message = f"{printable(name)}: lies beside the shards, the index does not name it"
            facts.problem("integrity.extra-file", message, file=name)
    headers = {}
    for name, header in zip(names, pooled(facts.files, lambda name: _header(facts, name), names), strict=True):
        if header is not None:
            headers[name] = header
    if not headers and not facts.config and not listed and not facts.listing:
        raise CheckpointError(f"{facts.files.where}: holds no checkpoint", hint="is the path right?")
    return headers


def _header(facts: Facts, name: str) -> Header | None:
    shard = facts.shards[name] = ShardFacts(name)
    where = printable(name)
    try:
        found = facts.files.header(name)
    except CheckpointError as error:
        if facts.files.remote and not isinstance(error, HeaderError):  # the way there failed, not the file
            raise
        facts.problem("integrity.shard", printable(error.message), file=name)
        return None
    if found is None:
        if facts.listing is None or name not in facts.listing or facts.listing[name].problem is None:
            facts.problem("integrity.shard", f"{where}: the shard is missing", file=name)
        return None
    text, shard.bytes = found
    shard.header_sha256 = hashlib.sha256(text).hexdigest()
    shard.stated = facts.files.stated_sha256(name)
    try:
        return parse_header(text, shard.bytes, where, name)
    except CheckpointError as error:
        facts.problem("integrity.shard", error.message, file=name)
        return None
