"""Loadability, continued: config.json's other keys, versions, and how many ranks the model divides by."""

import re
from collections.abc import Iterator
from typing import Any

from halfbyte.engines.alignment import Cut
from halfbyte.engines.catalogue import ENGINES
from halfbyte.errors import CheckpointError
from halfbyte.formats.catalogue import NVFP4
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import Found, printable
from halfbyte.gate.registry import rule
from halfbyte.models import text_config_of
from halfbyte.models.reading import indexer_layers

CONFIG = "config.json"
ARCHITECTURES = "architectures"


@rule("loadability.config-keys", "deny", "A key that an engine does not find is replaced by a default, silently.")
def config_keys(facts: Facts) -> Iterator[Found]:
    if facts.arch is None or facts.roles is None:
        return
    stated = text_config_of(facts.config)
    family = facts.roles.family
    for key in (ARCHITECTURES, family.top_k_key, *family.needs):
        if stated.get(key) is None:
            yield Found(f"{CONFIG}: {key} is missing", file=CONFIG)
    top_k = facts.arch.top_k
    if top_k > facts.arch.experts:
        yield Found(f"{CONFIG}: {family.top_k_key} {top_k} of {facts.arch.experts} experts", file=CONFIG)


@rule(
    "loadability.indexer-schedule",
    "deny",
    "vLLM derives which layers carry an indexer from index_topk_freq and index_skip_topk_offset (default 2), SGLang "
    "prefers indexer_types: they must say the same as each other and as the files.",
)
def indexer_schedule(facts: Facts) -> Iterator[Found]:
    if facts.roles is None or facts.roles.family.sparse_attention is None:
        return
    stated = facts.roles.indexers
    derived_config = {key: value for key, value in text_config_of(facts.config).items() if key != "indexer_types"}
    try:
        derived = indexer_layers(derived_config, facts.roles.layers)
    except CheckpointError as error:
        yield Found(error.message, file=CONFIG)
        return
    for engine in facts.engines:
        if ENGINES[engine].config_indexer_types or derived == stated:
            continue
        layers = ", ".join(map(str, sorted(derived ^ stated)[:8]))
        yield Found(
            f"{engine}: index_topk_freq and index_skip_topk_offset disagree with indexer_types at {layers}", file=CONFIG
        )


@rule("loadability.config-kept", "deny", "A key that the source's config.json has and the candidate's lost or changed.")
def config_kept(facts: Facts) -> Iterator[Found]:
    if facts.source is None:
        return
    allowed = {"quantization_config", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "text_config"}
    stated = text_config_of(facts.config)
    for key, value in text_config_of(facts.source.config).items():
        if key in allowed:
            continue
        if key not in stated:
            yield Found(f"{CONFIG}: {printable(key, 60)} was lost, the source has it", file=CONFIG)
        elif stated[key] != value:
            now = printable(str(stated[key]), 60)
            yield Found(
                f"{CONFIG}: {printable(key, 60)} is {now}, the source has {printable(str(value), 60)}", file=CONFIG
            )


@rule(
    "loadability.model",
    "deny",
    "A policy written for one model says nothing about another.",
)
def model(facts: Facts) -> Iterator[Found]:
    for key, wanted in facts.policy.model.config.items():
        value: Any = facts.config.get(key, text_config_of(facts.config).get(key))
        if value != wanted or type(value) is not type(wanted):
            message = f"{CONFIG}: {key} is {printable(str(value), 60)}, this policy is for {wanted}"
            yield Found(message, file=CONFIG)


@rule(
    "loadability.tensor-parallel",
    "deny",
    "Heads and expert width must divide by the ranks, and each rank's part of a row by the block of 16.",
)
def tensor_parallel(facts: Facts) -> Iterator[Found]:
    ranks, arch = facts.policy.hardware.tensor_parallel, facts.arch
    if ranks is None or arch is None:
        return
    if arch.heads % ranks:
        yield Found(f"{arch.heads} attention heads do not divide over {ranks} ranks", file=CONFIG)
    cut = Cut(arch.expert_width, ranks)
    if cut.splits_a_block:
        width = f"experts of width {arch.expert_width}"
        yield Found(f"{width} do not divide over {ranks} ranks in blocks of {BLOCK_SIZE}", file=CONFIG)
    elif ranks > 1 and cut.off_the_kernels_step:
        asked = [ENGINES[engine] for engine in facts.engines]
        versions = ", ".join(f"{engine.title} {engine.read}" for engine in asked)
        seen = [engine.cut_gated for engine in asked] if arch.gated_experts else []
        yield Found(f"experts of width {cut.by_kernels(versions, seen)}", file=CONFIG, at_most="warn")


@rule("loadability.engine-version", "deny", "An engine older than the architecture or the format cannot load it.")
def engine_version(facts: Facts) -> Iterator[Found]:
    if facts.roles is None:
        return
    asked = facts.options.engine_version
    if asked is not None and facts.options.engines:
        engine = facts.options.engines[0]
        wanted = facts.roles.family.support(engine).since
        if version_numbers(asked) < wanted:
            least = ".".join(map(str, wanted))
            yield Found(f"{engine} {printable(asked, 40)} is older than {least}, the least known to load it")
    wrote = facts.config.get("transformers_version")
    wanted = facts.roles.family.support("transformers").since
    if isinstance(wrote, str) and version_numbers(wrote) < wanted:
        message = f"{CONFIG}: written for transformers {printable(wrote, 40)}, the architecture needs {wanted[0]}"
        yield Found(message, file=CONFIG, at_most="warn")


def version_numbers(text: str) -> tuple[int, ...]:
    """`0.5.13.post1` -> (0, 5, 13); what is no number ends it."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(piece[:9]) for piece in found.group(1).split(".")) if found else ()


@rule(
    "loadability.nothing-packed",
    "deny",
    "Metadata that promises NVFP4 over files without it makes engines misread BF16.",
)
def nothing_packed(facts: Facts) -> Iterator[Found]:
    if facts.algorithm is not None and "FP4" in facts.algorithm.upper() and facts.alike and not facts.packed:
        yield Found(f"the algorithm is {printable(facts.algorithm, 60)}, but no tensor is {NVFP4}", file=CONFIG)
