"""Nonsense gets one error that names the value and what would be possible."""

from pathlib import Path

import pytest

from halfbyte.engines.server import communicator_bytes
from halfbyte.errors import UsageError
from halfbyte.plan.hardware import catalogue, find_gpu

from .models import paper, server

GLM = paper()
NAMES = ["h100", "h200", "b200", "b300", "gb200", "gb300", "rtxpro6000", "l40s", "a100", "mi300x", "mi355x"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpus": 6, "tp": 6}, "64 attention heads"),
        ({"gpus": 8, "tp": 4}, "needs 4 GPUs"),
        ({"gpus": 0}, "gpus is 0"),
        ({"tp": -1}, "tp is -1"),
        ({"engine": "tgi"}, "unknown engine"),
        ({"ep": 3}, "does not divide"),
        ({"dcp": 3}, "does not divide"),
        ({"context": 2_000_000}, "the model has 1048576"),
        ({"fraction": 1.5}, "memory fraction"),
        ({"chunk": 0}, "chunk is 0"),
        ({"kv_dtype": "int2"}, "unknown KV cache dtype"),
        ({"kv_dtype": "fp8_ds_mla"}, "layout of vLLM"),
        ({"mtp_tokens": 99}, "draft tokens"),
        ({"engine": "vllm", "gpus": 8, "tp": 1, "dp": 8, "ep": 4}, "tp x dp = 8"),
    ],
)
def test_nonsense(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settle(options)


def settle(options: dict[str, object]) -> None:
    server(GLM, **options).limits(GLM.arch)  # type: ignore[arg-type]


def test_no_mtp_without_such_a_layer() -> None:
    with pytest.raises(UsageError, match="no MTP layer"):
        server(paper("Qwen3-30B-A3B", None), mtp_tokens=1)


def test_layouts_of_both_engines() -> None:
    assert server(GLM).layout.attention == 8
    under_dp = server(GLM, dp=8).layout
    assert (under_dp.attention, under_dp.embedding, under_dp.head, under_dp.dense) == (1, 1, 8, 8)
    wide = server(GLM, engine="vllm", tp=1, dp=8, ep=8).layout
    assert (wide.attention, wide.expert_count, wide.expert_width, wide.shared) == (1, 8, 1, 1)


def test_replicas() -> None:
    assert server(GLM, gpus=16, tp=8, dp=2).replicas == 2
    assert server(GLM, dp=8).replicas == 1
    assert server(GLM, dp=8).kv_ranks == 8
    vllm = server(GLM, engine="vllm", tp=4, dp=2)
    assert (vllm.replicas, vllm.kv_ranks, vllm.layout.expert_width, vllm.layout.attention) == (1, 2, 8, 4)
    alone = server(paper("Qwen3-30B-A3B", None), gpus=1)
    several = server(GLM)
    assert communicator_bytes(several.gpu, several.world, several.dcp) > 0
    assert communicator_bytes(alone.gpu, alone.world, alone.dcp) == 0


def test_versions() -> None:
    for version, keeps in (("0.5.13.post1", True), ("0.5.23", False), ("some fork", False)):
        d = server(GLM, engine_version=version)
        assert d.facts.keeps_all_index_layers(d.version) is keeps


def test_catalogue_is_complete_and_sourced() -> None:
    gpus = catalogue()
    assert set(NAMES) <= set(gpus)
    for gpu in gpus.values():
        assert set(gpu.sources) >= {"memory", "speed"}
        assert gpu.memory_gib > 20


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA B200", "b200"), ("RTX PRO 6000", "rtxpro6000"), ("AMD Instinct MI355X 288GB", "mi355x"),
        ("NVIDIA H20 141GB", "h20-141"), ("A100-80", "a100"), ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-SXM4-80GB", "a100"), ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA B300 SXM6 AC", "b300"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtxpro6000"), ("H200-SXM", "h200"),
        ("NVIDIA GeForce RTX 5090", "rtx5090"), ("RTX 4090 24GB", "rtx4090"), ("NVIDIA GB10", "gb10"),
    ],
)  # fmt: skip
def test_names_as_people_write_them(name: str, found: str) -> None:
    assert find_gpu(name).name == found


def test_no_name_means_two_gpus() -> None:
    for gpu in catalogue().values():
        assert all(find_gpu(alias).name == gpu.name for alias in (gpu.name, *gpu.aliases))


def test_unknown_gpu_and_senseless_memory() -> None:
    with pytest.raises(UsageError, match="unknown GPU 'b20'") as caught:
        find_gpu("b20")
    assert "b200" in str(caught.value.hint)
    with pytest.raises(UsageError, match="GiB is not possible"):
        find_gpu("b200", memory_gib=-3)
    assert find_gpu("b200", memory_gib=100).memory_gib == 100


def test_users_add_hardware(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "- {name: x1, memory_gib: 50, bandwidth_gb_s: 1000, dense_tflops: {bf16: 100}, link: pcie, link_gb_s: 32,\n"
        "   compute_capability: '9.0', sources: {memory: me, speed: me}}\n"
    )
    assert find_gpu("x1", file).flops("fp4") == 100e12
    file.write_text("- {name: x1, memory_gib: -5}\n")
    with pytest.raises(UsageError, match=r"mine\.yaml: entry 0"):
        catalogue.__wrapped__(file)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (None, (9999,)), ("", (9999,)), ("fork image 20260424", (9999,)), ("0.0.0+local (fork, 2026-05)", (9999,)),
        ("v0.11.0", (0, 11, 0)), ("0.10.x (2025-08)", (0, 10)), ("0.20.2rc1.dev249 (fork)", (0, 20, 2)),
        ("0.25.1+cu129", (0, 25, 1)), ("vLLM 0.7", (0, 7)), ("9" * 5000, (9999,)),
    ],
)  # fmt: skip
def test_versions_as_people_write_them(text: str | None, numbers: tuple[int, ...]) -> None:
    model = paper()
    assert server(model, engine="vllm", engine_version=text).version == numbers
