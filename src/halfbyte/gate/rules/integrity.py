"""Integrity: config, index, headers and evidence agree, and every byte is where and what they say."""

from collections.abc import Iterator

from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.evidence.dossier import File
from halfbyte.evidence.names import DOSSIER
from halfbyte.gate.facts import Facts, reported
from halfbyte.gate.findings import Found, printable
from halfbyte.gate.hashes import computed_sha256, stated_files
from halfbyte.gate.reading import dossier_of
from halfbyte.gate.registry import Check, rule
from halfbyte.recipes.policy import Severity

NOT_LOADED = (".md", ".txt", ".py", ".jsonl", ".png", ".gitattributes")
"""Endings of files that no engine loads: a change there is worth a word, not a refusal."""


def _reports(id: str, severity: Severity, rationale: str) -> None:
    """A rule whose findings reading already made."""

    def check(facts: Facts) -> Iterator[Found]:
        yield from reported(facts, id)

    wanted: Check = check
    rule(id, severity, rationale)(wanted)


_reports("integrity.config", "deny", "Nothing can be said of a model whose config.json is absent, damaged or unknown.")
_reports(
    "integrity.index", "deny", "An engine that trusts an index which does not match the shards loads half a model."
)
_reports("integrity.shard", "deny", "A missing, truncated or malformed shard fails at load, or worse, does not.")
_reports("integrity.unreadable", "deny", "A file that cannot be read cannot be judged.")
_reports("integrity.path", "deny", "A path or link that leads out of the folder reads, or overwrites, something else.")
_reports("integrity.extra-file", "deny", "Loaders that glob *.safetensors load a stray shard over the right one.")
_reports("integrity.duplicate-tensor", "deny", "Of two tensors of one name, which one is served depends on the loader.")
_reports("integrity.unknown-tensor", "deny", "Engines drop a tensor they do not know with a warning, or stop.")
_reports("integrity.missing-tensor", "deny", "A weight that is not there is served as uninitialised memory.")
_reports("integrity.experts", "deny", "The experts are numbered by config.json: none missing, none too many.")
_reports("integrity.layers", "deny", "The layers are numbered by config.json: none missing, none too many.")
_reports(
    "integrity.mtp", "deny", "An announced MTP layer that is not in the files makes engines draft garbage, silently."
)
_reports(
    "integrity.indexer",
    "deny",
    "With IndexShare only full layers carry an indexer: vLLM has no module for one too many, and nothing to select "
    "with for one too few.",
)
_reports("integrity.shape", "deny", "Shapes follow from config.json: another shape is another model.")
_reports(
    "integrity.parts", "deny", "A packed weight without its scales, or scales that do not fit it, cannot be decoded."
)
_reports("integrity.evidence-file", "deny", "halfbyte.json is what hashes and results are read from.")


@rule(
    "integrity.total-size", "warn", "The index states the tensors' bytes; another number means it is another's index."
)
def total_size(facts: Facts) -> Iterator[Found]:
    metadata = (facts.index or {}).get("metadata")
    stated = metadata.get("total_size") if isinstance(metadata, dict) else None
    there = sum(tensor.bytes for tensor in facts.tensors.values())
    if isinstance(stated, int | float) and stated != there and "integrity.shard" not in facts.problems:
        yield Found(f"{INDEX_NAME}: total_size is {stated}, the shards hold {there} bytes", file=INDEX_NAME)


@rule(
    "integrity.hash",
    "deny",
    "Sizes and SHA-256 as the producer wrote them into halfbyte.json, or as the hub states them: a flipped bit in a "
    "weight shows nowhere else. Shards are hashed at depth full.",
)
def hashes(facts: Facts) -> Iterator[Found]:
    for name, stated in sorted(stated_files(facts).items()):
        found = _compare(facts, name, stated)
        if found is not None:
            yield found
    for name, shard in facts.shards.items():
        actual = computed_sha256(facts, name) if facts.options.depth == "full" else None
        if actual is not None and shard.stated is not None and actual != shard.stated:
            yield Found(f"{printable(name)}: SHA-256 {actual}, the hub states {shard.stated}", file=name)


def _compare(facts: Facts, name: str, stated: File) -> Found | None:
    blame = {"file": name, "at_most": "warn" if name.lower().endswith(NOT_LOADED) else "deny"}
    is_shard = name in facts.shards
    if facts.listing is not None and name not in facts.listing:
        return Found(f"{printable(name)}: missing, halfbyte.json lists it", **blame)  # type: ignore[arg-type]
    listed = facts.listing[name].bytes if facts.listing is not None else None
    if not is_shard and listed is not None and listed > JSON_LIMIT_BYTES:
        return Found(f"{printable(name)}: {listed} bytes are too many for a side file", **blame)  # type: ignore[arg-type]
    actual_size = facts.shards[name].bytes if is_shard else None
    if actual_size is not None and actual_size != stated.bytes:
        message = f"{printable(name)}: {actual_size} bytes, halfbyte.json has {stated.bytes}"
        return Found(message, **blame)  # type: ignore[arg-type]
    actual = computed_sha256(facts, name) if not is_shard or facts.options.depth == "full" else None
    if actual is None and is_shard:
        actual = facts.shards[name].stated
    if actual is not None and actual != stated.sha256 and not (is_shard and _improved(facts, name, actual)):
        message = f"{printable(name)}: SHA-256 {actual}, halfbyte.json has {printable(stated.sha256)}"
        return Found(message, **blame)  # type: ignore[arg-type]
    return None


def _improved(facts: Facts, name: str, actual: str) -> bool:
    """Whether a shard is as `quantize --improve` made it, by the evidence as it was read or as it is by now."""
    if facts.evidence is not None and facts.evidence.allows(name, actual):
        return True
    now, _ = dossier_of(facts.files.text(DOSSIER) or b"")
    return now is not None and now.allows(name, actual)


@rule(
    "integrity.improving",
    "warn",
    "While quantize --improve replaces shards, or after it was stopped, a checkpoint loads, but its bytes will change: "
    "a decision on it does not last.",
)
def unfinished_improvement(facts: Facts) -> Iterator[Found]:
    state = None if facts.evidence is None else facts.evidence.improving
    if state is not None:
        yield Found(f"{DOSSIER}: {state.statement}", file=DOSSIER)


@rule("integrity.unlisted-shard", "deny", "A shard that the producer's evidence does not list was added afterwards.")
def unlisted_shard(facts: Facts) -> Iterator[Found]:
    stated = stated_files(facts)
    if facts.evidence is None:
        return
    for name in facts.shards:
        if name not in stated:
            yield Found(f"{printable(name)}: halfbyte.json does not list it", file=name)
