"""The published layouts of GLM-5.2 at full size: what each policy says, and how long the gate takes."""

import resource
from pathlib import Path

import pytest

from halfbyte.gate.judge import gate

from .full_size import KINDS, write_full_size

EXPECTED = {
    "routed experts (as NVIDIA publishes it)": ("pass", "undecided", "pass"),
    "routed and shared experts": ("refused", "refused", "pass"),
    "routed experts, last two layers kept": ("pass", "refused", "pass"),
    "blanket": ("refused", "refused", "pass"),
}
POLICIES = ("default", "glm-5.2-nvfp4-production", "research")


@pytest.mark.slow
def test_the_published_checkpoint_passes(tmp_path: Path) -> None:
    decision = gate(write_full_size(tmp_path / "glm", next(iter(KINDS))), hardware="b200x8")
    assert [finding.found.message for finding in decision.findings if finding.severity == "deny"] == []
    assert decision.verdict == "pass"
    assert decision.checkpoint["tensors"] == 232_385
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2_000_000  # kB, of the whole test process


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_by_every_policy(kind: str, tmp_path: Path) -> None:
    folder = write_full_size(tmp_path / "glm", kind)
    found = tuple(gate(folder, policy=policy, hardware="b200x8").verdict for policy in POLICIES)
    assert found == EXPECTED[kind]


@pytest.mark.slow
def test_a_machine_that_is_too_small(tmp_path: Path) -> None:
    folder = write_full_size(tmp_path / "glm", next(iter(KINDS)))
    decision = gate(folder, hardware="b200x2")
    assert [finding.rule for finding in decision.findings if finding.refuses] == ["hardware.fits"]
