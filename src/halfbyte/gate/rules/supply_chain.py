"""Supply chain: what comes with the weights. Licences, payloads, templates, tokenizer, provenance, signature."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from halfbyte.data.vocabulary import VOCABULARY_FILES
from halfbyte.evidence.names import DOSSIER
from halfbyte.gate.card import front_matter, licence_of
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import Found, plural, printable
from halfbyte.gate.reading import CARDS, CODE_CONFIGS, parse_json
from halfbyte.gate.registry import rule
from halfbyte.gate.template import judge_templates
from halfbyte.gate.tokenizer import judge_tokenizer

PICKLES = (
    ".bin",
    ".pt",
    ".pth",
    ".pkl",
    ".pickle",
    ".ckpt",
    ".joblib",
    ".dill",
    ".mar",
    ".h5",
    ".keras",
)
"""Formats whose loaders run, or can be made to run, code from the file."""

PROGRAMS = (".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ps1", ".jar", ".pyc", ".whl", ".pyd")


@rule(
    "supply.pickle",
    "deny",
    "Pickled weights run code when they are loaded, and a loader that finds both kinds may take them.",
)
def pickle(facts: Facts) -> Iterator[Found]:
    names = facts.listing if facts.listing is not None else facts.digests
    for name in names:
        lower = name.lower()
        if lower.endswith(PICKLES) or lower.endswith(".bin.index.json"):
            yield Found(f"{printable(name)}: a pickled (or code-carrying) payload beside the weights", file=name)


@rule("supply.program", "warn", "Native libraries and scripts have no place in a checkpoint; nothing here runs them.")
def program(facts: Facts) -> Iterator[Found]:
    for name in facts.listing or ():
        if name.lower().endswith(PROGRAMS):
            yield Found(f"{printable(name)}: a program beside the weights", file=name)


@rule(
    "supply.remote-code",
    "deny",
    "`auto_map` makes transformers and engines run Python from the repository under --trust-remote-code; the families "
    "that this gate knows need none.",
)
def remote_code(facts: Facts) -> Iterator[Found]:
    for name in CODE_CONFIGS:
        document = facts.config if name == "config.json" else _json(facts, name)
        for path in _code_keys(document):
            yield Found(f"{name}: {path} names code to run", file=name)
    for name in facts.listing or ():
        if PurePosixPath(name).parts[0] == "custom_generate":
            yield Found(f"{printable(name)}: generate() would run it", file=name)


def _json(facts: Facts, name: str) -> dict[str, Any]:
    document, _ = parse_json(facts.side[name]) if name in facts.side else (None, None)
    return document or {}


def _code_keys(document: dict[str, Any]) -> Iterator[str]:
    """Paths of keys that name code, one level of nested configs included."""
    levels = [("", document)] + [(f"{key}.", value) for key, value in document.items() if isinstance(value, dict)]
    for prefix, level in levels:
        for key in ("auto_map", "custom_pipelines", "custom_generate"):
            if level.get(key):
                yield printable(prefix + key, 100)
        if level.get("trust_remote_code") is True:
            yield printable(prefix + "trust_remote_code", 100)


@rule("supply.licence", "deny", "A licence that the policy does not list, of the model or of the one it was made from.")
def licence(facts: Facts) -> Iterator[Found]:
    allowed = facts.policy.supply_chain.licences
    if allowed is None:
        return
    for name in CARDS:
        if name in facts.side:
            stated = licence_of(front_matter(facts.side[name]))
            if stated is not None and stated.lower() not in {entry.lower() for entry in allowed}:
                yield Found(f"{name}: licence {printable(stated, 80)!r} is not in the policy's list", file=name)


@rule("supply.licence-stated", "warn", "Without a stated licence nobody has the right to serve it.")
def licence_stated(facts: Facts) -> Iterator[Found]:
    cards = [name for name in CARDS if name in facts.side]
    if not any(licence_of(front_matter(facts.side[name])) for name in cards):
        yield Found(f"{cards[0] if cards else 'README.md'}: states no licence", file=cards[0] if cards else "README.md")


@rule("supply.card", "deny", "Front matter that does not parse hides licence and origin.")
def card(facts: Facts) -> Iterator[Found]:
    for name in CARDS:
        if name in facts.side and front_matter(facts.side[name]) is None:
            yield Found(f"{name}: the front matter is not valid YAML", file=name)


@rule("supply.provenance", "warn", "Base model, producer with version, and calibration data make a result repeatable.")
def provenance(facts: Facts) -> Iterator[Found]:
    front = front_matter(facts.side.get("README.md", b"")) or {}
    evidence = facts.evidence
    if not (front.get("base_model") or (evidence and evidence.source.name)):
        yield Found("the base model is not stated (base_model of README.md, or halfbyte.json)", file="README.md")
    producer = (facts.quantization or {}).get("producer") or (facts.quant or {}).get("producer")
    stated = isinstance(producer, dict) and producer.get("name") and producer.get("version")
    if not stated and not (evidence and evidence.halfbyte):
        yield Found("the producer and its version are not stated", file="config.json")
    scale = evidence and evidence.input_scale
    needs_data = any("input_scale" in some.first.tensors for some in facts.packed[:1])
    if needs_data and scale is None and "calibration" not in _prose(facts):
        yield Found("the calibration data are not stated", file=DOSSIER)


def _prose(facts: Facts) -> str:
    return facts.side.get("README.md", b"")[:1_000_000].decode("utf-8", "replace").lower()


@rule(
    "supply.chat-template",
    "deny",
    "A chat template is a program that every request runs through: it is scanned, and rendered in a sandbox with "
    "limits on time and memory.",
)
def chat_template(facts: Facts) -> Iterator[Found]:
    yield from judge_templates(facts.side)


@rule(
    "supply.tokenizer",
    "deny",
    "A truncated tokenizer, or one with more tokens than the embedding has rows, fails at start or at one odd prompt.",
)
def tokenizer(facts: Facts) -> Iterator[Found]:
    yield from judge_tokenizer(facts.side, facts.arch.vocab if facts.arch is not None else None)


@rule("supply.tokenizer-present", "warn", "Weights without their tokenizer are served with somebody's guess.")
def tokenizer_present(facts: Facts) -> Iterator[Found]:
    names = facts.listing if facts.listing is not None else facts.digests
    if not any(name in names for name in VOCABULARY_FILES):
        yield Found("there is no tokenizer", file="tokenizer.json")


@rule("supply.signature", "deny", "The policy asks for a signature (OpenSSF model signing) by a key that it names.")
def signature(facts: Facts) -> Iterator[Found]:
    wanted = facts.policy.supply_chain.signature
    if not wanted.required:
        return
    from halfbyte.gate.signature import problem_with_signature

    problem = problem_with_signature(facts)
    if problem is not None:
        yield Found(problem, file=wanted.file)


@rule(
    "supply.listing", "info", "A plain web server shows no directory: files that are not asked for by name stay unseen."
)
def listing(facts: Facts) -> Iterator[Found]:
    if facts.listing is None:
        yield Found(
            f"{facts.files.where}: shows no file list; {plural(len(facts.digests), 'file')} known by name were read"
        )
