"""The plan against posted server logs: the bars that it meets may not be lost."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_posted_logs() -> None:
    words = [sys.executable, "-m", "benchmarks.plan.plan_accuracy", "--json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["checkpoint bytes"]["median_percent"] <= 0.5
    assert report["weights per GPU (GiB)"]["median_percent"] <= 2
    assert report["weights per GPU (GiB)"]["p90_percent"] <= 6
    assert report["KV tokens given the pool"]["median_percent"] <= 8
    assert report["KV tokens from flags"]["median_percent"] <= 4
    assert report["KV tokens from flags"]["p90_percent"] <= 14
    assert report["fit"]["oom_found"] >= 0.9 * report["fit"]["oom"]
    assert report["fit"]["wrongly_unfit"] == []
    assert all(report["bars without unexplained rows"].values())
