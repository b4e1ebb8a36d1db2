"""One document of each kind with every field that Halfbyte writes, in the order in which it writes them."""

import json
from typing import Any

HASH = "0123456789abcdef" * 4


def dossier() -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(DOSSIER))  # shares nothing with itself
    return copied


def estimate(mean: float | None = 0.25) -> dict[str, Any]:
    return {"mean": mean, "low": 0, "high": None}


def figures(**first: Any) -> dict[str, Any]:
    perplexity = {"base": 45.9, "candidate": 47.1, "ratio": 1.03, "low": 1.01, "high": float("inf")}
    return first | {
        "tokens": 3000,
        "documents": 10,
        "kl": estimate(),
        "perplexity": perplexity,
        "top1_agreement": estimate(),
        "topk_overlap": {"k": 10} | estimate(),
    }


def measured(**more: Any) -> dict[str, Any]:
    probe = {"base": estimate(-0.1), "candidate": estimate(), "difference": estimate(-0.1)}
    return figures() | {
        "slices": {"domain": {"korean": figures()}},
        "positions": [figures(start=0, stop=128)],
        "layers": [{"layer": 0, "hidden_error": 0.0, "router_agreement": None, "indexer_overlap": 1.0}],
        "recall": [
            {
                "length": 256,
                "language": "en",
                "probes": 2,
                "log_probability": probe,
                "rank": {"base": 1.0, "candidate": 1.5},
                "recalled": {"base": estimate(1.0), "candidate": estimate(0.5)},
                "depths": [
                    {"depth": 0.5, "probes": 2, "difference": -0.1, "recalled": {"base": 1.0, "candidate": 0.5}}
                ],
            }
        ],
        **more,
    }


DATA = {"documents": 10, "tokens": 3000, "sha256": HASH}
COVERAGE = {
    "min_tokens": 64,
    "experts": 8,
    "uncovered": [{"layer": 1, "expert": 3, "tokens": 7}],
    "layers": [
        {
            "layer": 1,
            "tokens": {"least": 7, "median": 70.5, "most": 90},
            "histogram": {"0": 0, "1-15": 1, "16-63": 0, "64-255": 7},
            "uncovered": 1,
        }
    ],
}
ROW = {"role": "routed_expert", "mtp": False, "format": "nvfp4", "tensors": 24}
ROW |= {"parameters": 1000, "bytes_before": 2000, "bytes_after": 570}
ERRORS = {"relative_error": 0.0848, "sqnr_db": 21.4}
BLOCKS = {"clamped_blocks": 0, "zero_blocks": 0}
MODULE = "model.layers.1.mlp.experts.0.down_proj"

CALIBRATION: dict[str, Any] = {
    "schema": 2,
    "halfbyte": "0.1.0",
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "model_type": "glm_moe_dsa",
    "model": "source",
    "amax": "headroom",
    "data": {
        **DATA,
        "sources": {"ours.jsonl": {"documents": 10, "tokens": 3000}},
        "labels": {"domain": {"korean": {"documents": 10, "tokens": 3000}}},
    },
    "held_out": {"documents": 1},
    "sampling": {"tokens": None, "max_length": 2048, "seed": 0, "pack": False},
    "coverage": COVERAGE,
    "experts": {"1": {"tokens": [7, 70]}},
    "inputs": {
        "model.layers.1.mlp.experts.gate_up_proj": {
            "headroom": 60.5,
            "largest": {"calibration": 1.97, "held_out": 1.5},
            "rules": {"max": {"input_scale": 0.1, "calibration": None, "held_out": None}},
            "blocks": {"calibration": {"first_bin": 3, "counts": "1 2", "largest": 1.97}},
        }
    },
    "warnings": ["1 of 8 experts saw fewer than 64 of 3000 tokens"],
}

DOSSIER: dict[str, Any] = {
    "schema": 1,
    "halfbyte": "0.1.0",
    "versions": {"numpy": "2.4.6", "numba": "0.68.1", "ml-dtypes": "0.6.0"},
    "model_type": "glm_moe_dsa",
    "source": {"name": "tiny-glm", "files": [{"file": "config.json", "bytes": 9, "sha256": HASH}]},
    "recipe": {
        "version": 1,
        "name": "nvfp4-routed-experts",
        "description": "Routed experts in NVFP4.",
        "algorithm": "NVFP4",
        "roles": {"routed_expert": "nvfp4"},
        "layers": {"keep_first": 0, "keep_last": 0, "overrides": []},
        "mtp": "keep",
    },
    "rounding": "gptq",
    "rounded_on_data": {
        "method": "gptq",
        "data": DATA,
        "settings": {"damping": 0.1, "sweeps": 2, "compensate": True},
        "layers": [1],
        "coverage": COVERAGE,
        "rounded_by_sweep": ["shared_expert"],
        "experts": {
            "1": [
                {
                    "tokens": 656,
                    "held_out_tokens": 38,
                    "output_error_max": 0.13,
                    "output_error": None,
                    "damping": [1.66, 1.2],
                }
            ]
        },
    },
    "input_scale": {"description": "calibrated", "constant": None, "sha256": HASH, "calibration": CALIBRATION},
    "warnings": ["experts are thin"],
    "roles": [ROW | ERRORS | {"max_rule_relative_error": 0.095} | BLOCKS, ROW | {"role": "norm", "format": "bf16"}],
    "shards": [{"file": "model-00001-of-00001.safetensors", "bytes": 18_044_344, "sha256": HASH}],
    "files": [{"file": "config.json", "bytes": 9, "sha256": HASH}],
    "tensors": {
        MODULE: {"amax": 0.52} | ERRORS | BLOCKS,
        "of zeros": {"amax": 0} | ERRORS | {"sqnr_db": None} | BLOCKS,
    },
    "compare": [
        {
            "base": HASH,
            "candidate": HASH,
            "data_sha256": HASH,
            "recall_sha256": None,
            "halfbyte": "0.1.0",
            "result": measured(a4_sim=measured(), notes=["10 documents"]),
        }
    ],
    "evaluate": [{"candidate": HASH, "suite": "tiny", "verdict": "PASS", "slices": ["korean"], "max_context": 4096}],
    "improving": {
        "rounding": "gptq",
        "data": DATA,
        "shards_done": 1,
        "shards": 6,
        "next": {"file": "model-00001-of-00001.safetensors", "bytes": 18_044_344, "sha256": "f" * 64},
    },
}

DECISION: dict[str, Any] = {
    "decision": "refused",
    "findings": [
        {"rule": "supply.pickle", "severity": "deny", "message": "x.bin runs code", "file": "x.bin", "waived": False},
        {"rule": "gate.depth", "severity": "warn", "message": "read deeper", "waived": True},
    ],
    "checkpoint": {
        "target": "out",
        "model_type": "glm_moe_dsa",
        "tensors": 1060,
        "bytes": 17_923_776,
        "fingerprint": HASH,
        "shards": [
            {"file": "m.safetensors", "bytes": 18, "header_sha256": HASH, "sha256": None, "stated_sha256": HASH}
        ],
        "files": {"config.json": HASH},
    },
    "policy": {"name": "default", "version": 1, "sha256": HASH, "source": "default"},
    "options": {"engine": None, "hardware": "b200x8", "cluster": None, "depth": "headers", "source": None},
    "tool": {"name": "halfbyte", "version": "0.1.0"},
    "time": "2026-11-26T04:38:59+00:00",
    "gate_version": 1,
}
