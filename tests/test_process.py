"""How many cores are ours: in a container with a quota, not the machine's."""

import math
import os
from pathlib import Path

import pytest

from halfbyte import process

LINES = {
    "none": ("0::/\n", {}),
    "v2": ("0::/\n", {"cpu.max": "150000 100000\n"}),
    "v2, no limit": ("0::/pod/app\n", {"cpu.max": "max 100000\n", "pod/app/cpu.max": "max 100000\n"}),
    "v2, above": ("0::/pod/app\n", {"pod/cpu.max": "50000 100000\n", "pod/app/cpu.max": "max 100000\n"}),
    "v1": (
        "5:cpu,cpuacct:/pod\n4:memory:/pod\n",
        {"cpu,cpuacct/pod/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n"},
    ),
    "v1, no limit": ("5:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}),
}
QUOTAS = {"v2": 1.5, "v2, above": 0.5, "v1": 1.0}


@pytest.mark.parametrize("name", LINES)
def test_a_container_s_quota_bounds_the_cores(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, files = LINES[name]
    (tmp_path / "own").write_text(own)
    for file, text in files.items():
        path = tmp_path / "top" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(process, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(process, "CGROUPS", tmp_path / "top")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    wanted = math.ceil(QUOTAS[name]) if name in QUOTAS else 8
    assert process.cores() == wanted
    assert process.fewer_than_all() == (wanted if name in QUOTAS else None)


def test_those_that_a_process_is_bound_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OWN_CGROUPS", tmp_path / "none")
    assert process.cores() == len(os.sched_getaffinity(0))
