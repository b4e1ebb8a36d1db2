"""Peak memory stays within the budget, whatever the checkpoint's size."""

import json
import sys
from pathlib import Path

import pytest
from measured import output_and_peak_bytes

from stream.large import sparse_checkpoint, token_file


def peak(folder: Path, data: Path, out: Path, budget: str) -> tuple[int, dict[str, object]]:
    """Calibrate in a process of its own: the kernel's word on its peak, and what it printed."""
    command = [sys.executable, "-m", "halfbyte", "calibrate", str(folder), "--data", str(data), "-o", str(out)]
    output, peak_bytes = output_and_peak_bytes([*command, "--memory-budget", budget, "--json"])
    return peak_bytes, json.loads(output)


def test_three_quarters_of_a_gigabyte_calibrate_beside_the_libraries_in_less(tmp_path: Path) -> None:
    """The libraries alone take about half a gigabyte; the weights are 0.8 GB, 1.6 in float32."""
    sizes = {"hidden_size": 1024, "moe_intermediate_size": 512, "n_routed_experts": 128, "num_attention_heads": 4}
    total = sparse_checkpoint(tmp_path / "model", **sizes)
    assert total > 750_000_000
    data = token_file(tmp_path / "data.jsonl", [40] * 3, 96)
    peak_bytes, result = peak(tmp_path / "model", data, tmp_path / "scales.json", "1.1GB")
    assert peak_bytes <= 1_100_000_000
    assert result["tokens"] == 120
    assert result["peak_rss_bytes"] <= 1_100_000_000  # type: ignore[operator]


@pytest.mark.slow
def test_ten_gigabytes_calibrate_in_three(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 4096,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 88,
        "intermediate_size": 8192,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "q_lora_rank": 1024,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "qk_head_dim": 192,
        "v_head_dim": 128,
        "head_dim": 64,
        "index_head_dim": 128,
        "vocab_size": 16384,
    }
    assert sparse_checkpoint(tmp_path / "model", **sizes) > 9_000_000_000
    data = token_file(tmp_path / "data.jsonl", [128] * 8, 16384)
    peak_bytes, result = peak(tmp_path / "model", data, tmp_path / "scales.json", "3GB")
    assert peak_bytes <= 3_000_000_000
    assert result["tokens"] == 1024
