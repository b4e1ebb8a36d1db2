"""Rules that warn, ask for evidence or inform: what sets each off, and that every rule has something that does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halfbyte.checkpoint import files
from halfbyte.gate.catalogue import all_rules
from halfbyte.gate.judge import gate

from .corpus import BROKEN, EXPERT, compared, of_these_shards
from .draft import Draft
from .test_corpus import policy_with


def bloated(d: Draft) -> None:
    """The policy's bound is set below what it is."""


def wrong_total(d: Draft) -> None:
    d.index = lambda index: index["metadata"].update(total_size=7)


def half_improved(d: Draft) -> None:
    d.evidence = {**(d.evidence or {}), "improving": {"rounding": "gptq", "shards_done": 1, "shards": 2, "next": None}}


def no_nested(d: Draft) -> None:
    d.quant = None


def warm_expert(d: Draft) -> None:
    d.scalar(f"{EXPERT}.down_proj.input_scale", 40.0)


def every_input_scale_small(d: Draft) -> None:
    for name in [name for name in d.tensors if name.endswith(".input_scale")]:
        d.scalar(name, 1e-5)


def timid_scales(d: Draft) -> None:
    """Codes scaled down, as by a weight_scale_2 a hundred times too large."""
    name = f"{EXPERT}.down_proj.weight_scale"
    d.put(name, np.minimum(d.array(name), 0x48), "F8_E4M3")


def dead(d: Draft) -> None:
    name = f"{EXPERT}.down_proj.weight"
    d.put(name, np.zeros_like(d.array(name)))


def library(d: Draft) -> None:
    d.side["kernel.so"] = b"\x7fELF"


def no_licence(d: Draft) -> None:
    d.side["README.md"] = b"# A model\n"


def no_origin(d: Draft) -> None:
    d.side["README.md"], d.evidence = b"# A model\n", None


def no_tokenizer(d: Draft) -> None:
    del d.side["tokenizer.json"]


def nothing(d: Draft) -> None:
    """As made."""


def compared_in_english(d: Draft) -> None:
    compared(d, slices={"language": {"english": {"tokens": 9}}})
    of_these_shards(d)


def odd_transformers(d: Draft) -> None:
    d.config = {**(d.config or {}), "transformers_version": "4.57.0"}


KOREAN = {"evidence": [{"kind": "compare", "slices": ["korean"]}]}
CASES: list[tuple[str, Callable[[Draft], None], dict[str, Any], dict[str, Any] | None, str]] = [
    ("selective.bits-per-weight", bloated, {}, {"formats": {"bits_per_weight": {"max": 5}}}, "pass"),
    ("integrity.total-size", wrong_total, {}, None, "pass"),
    ("integrity.improving", half_improved, {}, None, "pass"),
    ("loadability.both-blocks", no_nested, {}, None, "pass"),
    ("loadability.engine-version", odd_transformers, {}, None, "pass"),
    ("loadability.engine-fault", nothing, {"engine": "sglang", "hardware": "h200x8"}, None, "pass"),
    ("numerics.hot-expert", warm_expert, {"depth": "scales"}, None, "pass"),
    ("numerics.input-scale", every_input_scale_small, {"depth": "scales"}, None, "pass"),
    ("numerics.unused-range", timid_scales, {"depth": "scales"}, None, "pass"),
    ("numerics.dead-expert", dead, {"depth": "full"}, None, "pass"),
    ("hardware.stated", nothing, {}, {"hardware": {"required": True}}, "undecided"),
    ("hardware.fallback", nothing, {"hardware": "h200x8"}, None, "pass"),
    ("hardware.sm120", nothing, {"hardware": "rtx-pro-6000x8"}, None, "pass"),
    ("supply.program", library, {}, None, "pass"),
    ("supply.licence-stated", no_licence, {}, None, "pass"),
    ("supply.provenance", no_origin, {}, None, "pass"),
    ("supply.tokenizer-present", no_tokenizer, {}, None, "pass"),
    ("evidence.exists", nothing, {}, KOREAN, "undecided"),
    ("evidence.coverage", compared_in_english, {}, KOREAN, "undecided"),
    ("gate.depth", nothing, {}, {"required_depth": "full"}, "undecided"),
]


@pytest.mark.parametrize(
    ("rule", "change", "options", "policy", "verdict"), CASES, ids=lambda v: getattr(v, "__name__", str(v)[:40])
)
def test_said_but_not_refused(
    rule: str,
    change: Callable[[Draft], None],
    options: dict[str, Any],
    policy: dict[str, Any] | None,
    verdict: str,
    tiny: Draft,
    tmp_path: Path,
) -> None:
    draft = tiny.copy()
    change(draft)
    decision = gate(draft.write(tmp_path / "model"), policy=policy_with(policy), **options)
    assert [finding.found.message for finding in decision.findings if finding.refuses] == []
    assert rule in {finding.rule for finding in decision.findings}
    assert decision.verdict == verdict


def test_hot_experts_are_named(tiny: Draft, tmp_path: Path) -> None:
    draft = tiny.copy()
    warm_expert(draft)
    findings = gate(draft.write(tmp_path / "model"), depth="scales").findings
    message = next(finding.found.message for finding in findings if finding.rule == "numerics.hot-expert")
    assert message.startswith("layer 2: expert 3 (down_proj) would set the layer's input_scale, 40.0 times")


def test_a_file_too_large_to_read_is_a_finding(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "JSON_LIMIT_BYTES", 200_000)
    refusing = [finding for finding in gate(tiny_folder).findings if finding.refuses]
    assert [(finding.rule, finding.found.file) for finding in refusing] == [("integrity.unreadable", "tokenizer.json")]


def test_every_rule_has_a_fixture_that_sets_it_off() -> None:
    elsewhere = {"supply.listing", "integrity.unreadable"}  # a server without a directory; the file above
    covered = {case.rule for case in BROKEN} | {rule for rule, *_ in CASES} | elsewhere
    assert set(all_rules()) == covered
