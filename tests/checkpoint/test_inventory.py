"""Totals by role of every published checkpoint, from headers alone, and groups of tensors that make no sense."""

import json
from collections import Counter
from collections.abc import Iterable
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest
from families.configs import CONFIGS
from families.expected import expected
from families.headers import header_set, role_set

from halfbyte.checkpoint.inspect import inspect
from halfbyte.checkpoint.inventory import Entry, alike, grouped, inventory, summed
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError
from halfbyte.formats.catalogue import SCALE_PARTS
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.formats.nvfp4 import stored as nvfp4
from halfbyte.models import roles_of
from halfbyte.models.roles import Role

from .files import write_checkpoint


def tensor(name: str, dtype: str, shape: tuple[int, ...]) -> Tensor:
    return Tensor(name, "x.safetensors", dtype, shape, 0, prod(shape) * DTYPE_BYTES[dtype])


def listed(headers: Iterable[tuple[str, str, tuple[int, ...]]]) -> dict[str, Tensor]:
    return {name: tensor(name, dtype, shape) for name, dtype, shape in headers}


def entries_of(name: str) -> list[Entry]:
    return inventory(listed((n, *header) for n, header in header_set(name).items()), roles_of(CONFIGS[name]))


@cache
def groups_of(name: str) -> list[dict[str, Any]]:
    """Groups of a set, whose single tensors have been checked."""
    entries, labels = entries_of(name), role_set(name)
    found = {part.name: (entry.role.role, entry.role.mtp) for entry in entries for part in entry.tensors.values()}
    assert found == labels
    assert sum(len(entry.tensors) for entry in entries) == expected(name).tensors
    groups = grouped(summed(entries))
    scales = (*(f".{part}" for part in SCALE_PARTS), "_scales")
    # A router's `.scale` (gemma4) is a weight of its own, not a stored tensor's scale.
    scaling = sum(tensor.endswith(scales) and not tensor.endswith("router.scale") for tensor in labels)
    assert sum(group["tensors"] for group in groups) == len(labels) - scaling
    return groups


@pytest.mark.parametrize("name", CONFIGS)
def test_published_checkpoints(name: str) -> None:
    groups, want = groups_of(name), expected(name)
    parameters: Counter[tuple[str, bool]] = Counter()
    for group in groups:
        parameters[group["role"], group["mtp"]] += group["parameters"]
    assert parameters == want.roles
    assert sum(group["bytes"] for group in groups) == want.bytes
    order = [(list(Role).index(group["role"]), group["mtp"]) for group in groups]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("name", "role", "mtp", "stored"),
    [
        ("GLM-5.2", "routed_expert", False, {"bf16"}),
        ("GLM-5.2", "router", False, {"bf16", "f32"}),
        ("GLM-5.2-FP8", "routed_expert", True, {"fp8-block"}),
        ("GLM-5.2-FP8", "indexer", False, {"fp8-block", "bf16"}),
        ("GLM-5.2-NVFP4", "routed_expert", False, {"nvfp4"}),
        ("GLM-5.2-NVFP4", "routed_expert", True, {"bf16"}),
        ("MiniMax-M2.5", "router", False, {"f32"}),
        ("Mixtral-8x7B-v0.1-fused", "routed_expert", False, {"bf16"}),
    ],
)
def test_formats(name: str, role: str, mtp: bool, stored: set[str]) -> None:
    formats = {group["format"] for group in groups_of(name) if (group["role"], group["mtp"]) == (role, mtp)}
    assert formats == stored


def test_glm_52_parameters_by_role() -> None:
    groups = groups_of("GLM-5.2")
    main: Counter[str] = Counter()
    for group in groups:
        if not group["mtp"]:
            main[group["role"]] += group["parameters"]
    assert main == {
        "routed_expert": 724_775_731_200,
        "attention": 12_871_732_224,
        "shared_expert": 2_831_155_200,
        "embedding": 951_582_720,
        "lm_head": 951_582_720,
        "dense_mlp": 679_477_248,
        "indexer": 196_809_984,
        "router": 117_984_000,
        "norm": 964_608,
    }
    assert sum(group["parameters"] for group in groups if group["mtp"]) == 9_952_920_576
    assert sum(group["parameters"] for group in groups) == 753_329_940_480


LINEARS = {Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP, Role.ATTENTION}
PLANS = {
    "BF16": (set(), 79, 79, 1_506_659_919_872),
    "routed": ({Role.ROUTED_EXPERT}, 78, 79, 464_795_267_072),
    "routed, no MTP": ({Role.ROUTED_EXPERT}, 78, 78, 444_889_425_408),
    "routed with MTP's": ({Role.ROUTED_EXPERT}, 79, 79, 450_903_738_368),
    "routed and shared": ({Role.ROUTED_EXPERT, Role.SHARED_EXPERT}, 78, 79, 460_725_483_272),
    "every MLP, no MTP": ({Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP}, 78, 78, 439_842_893_136),
    "MLPs and attention": (LINEARS, 78, 79, 441_245_909_888),
    "all but embeddings, eh_proj": (LINEARS | {Role.INDEXER, Role.LM_HEAD}, 79, 79, 425_404_841_256),
}


def test_glm_52_bytes_of_every_plan() -> None:
    """What the quantized checkpoint will weigh: the reference table, to the byte."""
    entries = entries_of("GLM-5.2")
    for plan, (quantized, layers, kept_layers, wanted) in PLANS.items():
        total = 0
        for entry in entries:
            role = entry.role
            layer = -1 if role.layer is None else role.layer
            is_matrix = len(entry.shape) == 2 and role.projection != "weights_proj"
            if role.role in quantized and layer < layers and is_matrix:
                total += sum(size for *_, size in nvfp4.FORMAT.tensors(role.module, entry.shape))
            elif layer < kept_layers:
                total += entry.bytes
        assert (plan, total) == (plan, wanted)


def test_published_nvfp4_tensors_are_those_we_would_write() -> None:
    module = "model.layers.9.mlp.experts.7.down_proj"
    headers = {n: header for n, header in header_set("GLM-5.2-NVFP4").items() if n.startswith(f"{module}.")}
    (entry,) = inventory(listed((n, *header) for n, header in headers.items()), roles_of(CONFIGS["GLM-5.2-NVFP4"]))
    assert (entry.role.module, entry.format) == (module, "nvfp4")
    written = nvfp4.FORMAT.tensors(entry.role.module, entry.shape)
    assert [(name, (dtype, shape)) for name, dtype, shape, _ in written] == [
        (part.name, headers[part.name]) for part in entry.tensors.values()
    ]
    assert [size for *_, size in written] == [part.bytes for part in entry.tensors.values()]


EXPERT = "model.layers.3.mlp.experts.0.gate_proj"
WEIGHT = (f"{EXPERT}.weight", "U8", (4, 32))
SCALE = (f"{EXPERT}.weight_scale", "F8_E4M3", (4, 4))
SCALE_2 = (f"{EXPERT}.weight_scale_2", "F32", ())
INPUT = (f"{EXPERT}.input_scale", "F32", ())
FP8 = (f"{EXPERT}.weight", "F8_E4M3", (200, 130))
TILES = (f"{EXPERT}.weight_scale_inv", "F32", (2, 2))
STACK = "model.layers.3.mlp.experts.down_proj"


@pytest.mark.parametrize(
    ("headers", "stored", "shape"),
    [
        ([WEIGHT, SCALE, SCALE_2, INPUT], "nvfp4", (4, 64)),
        ([INPUT, SCALE_2, SCALE, WEIGHT], "nvfp4", (4, 64)),
        ([WEIGHT, SCALE, SCALE_2], "nvfp4", (4, 64)),
        ([WEIGHT, SCALE, (SCALE_2[0], "F32", (1,))], "nvfp4", (4, 64)),
        ([FP8, TILES], "fp8-block", (200, 130)),
        ([FP8, (f"{EXPERT}.weight_scale", "F32", ()), INPUT], "fp8", (200, 130)),
        ([(f"{EXPERT}.weight", "F16", (2, 2))], "f16", (2, 2)),
        ([("model.layers.3.self_attn.attn.k_scale", "F32", ())], "f32", ()),
        ([(STACK, "BF16", (256, 4, 2))], "bf16", (256, 4, 2)),
        ([(f"{STACK}.weight", "BF16", (256, 4, 2))], "bf16", (256, 4, 2)),
    ],
)
def test_one_logical_tensor(
    headers: list[tuple[str, str, tuple[int, ...]]], stored: str, shape: tuple[int, ...]
) -> None:
    tensors = listed(headers)
    (entry,) = inventory(tensors, roles_of(CONFIGS["GLM-5.2"]))
    assert (entry.format, entry.shape, entry.parameters) == (stored, shape, prod(shape))
    assert entry.bytes == sum(part.bytes for part in tensors.values())
    assert entry.name == (WEIGHT[0] if len(headers) > 1 else headers[0][0])


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([SCALE], "weight_scale but no weight"),
        ([TILES], "scale without its weight"),
        ([INPUT, SCALE_2], "but no weight"),
        ([WEIGHT, SCALE], "no known format"),
        ([WEIGHT, SCALE_2], "no known format"),
        ([WEIGHT, SCALE, SCALE_2, TILES], "no known format"),
        ([(WEIGHT[0], "BF16", (4, 32)), INPUT], "BF16 with input_scale is no known format"),
        ([(WEIGHT[0], "U8", (4, 31)), SCALE, SCALE_2], "packed .* wanted"),
        ([(WEIGHT[0], "U8", ()), SCALE, SCALE_2], "packed .* wanted"),
        ([(WEIGHT[0], "U8", (2, 4, 32)), SCALE, SCALE_2], "packed .* wanted"),
        ([WEIGHT, (SCALE[0], "F8_E4M3", (4, 3)), SCALE_2], r"wanted F8_E4M3 \[4, 4\]"),
        ([WEIGHT, (SCALE[0], "U8", (4, 4)), SCALE_2], r"wanted F8_E4M3 \[4, 4\]"),
        ([WEIGHT, SCALE, (SCALE_2[0], "BF16", ())], "weight_scale_2: BF16 .* wanted one F32"),
        ([WEIGHT, SCALE, (SCALE_2[0], "F32", (2,))], "weight_scale_2: F32 .* wanted one F32"),
        ([WEIGHT, SCALE, SCALE_2, (INPUT[0], "F32", (0,))], "input_scale: F32 .* wanted one F32"),
        ([FP8, (TILES[0], "F32", (1, 1))], r"shape \[1, 1\], wanted \[2, 2\]"),
        ([(STACK, "BF16", (2, 2)), (f"{STACK}.weight", "BF16", (2, 2))], "twice"),
    ],
)
def test_tensors_that_do_not_fit_together(headers: list[tuple[str, str, tuple[int, ...]]], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        inventory(listed(headers), roles_of(CONFIGS["GLM-5.2"]))


@pytest.mark.parametrize("name", ["Qwen3-30B-A3B", "Mixtral-8x7B-v0.1", "GLM-4.5-Air"])
def test_experts_as_one_are_the_sum_of_them(name: str) -> None:
    tensors = listed((n, *header) for n, header in header_set(name).items())
    roles = roles_of(CONFIGS[name])
    assert alike(tensors, roles) == summed(inventory(tensors, roles))
    odd = dict(tensors)
    for one in [n for n in tensors if ".experts.1." in n][:3]:
        odd[one] = tensor(one, "F32", tensors[one].shape)
    try:
        wanted = summed(inventory(odd, roles))
    except CheckpointError:
        with pytest.raises(CheckpointError):
            alike(odd, roles)
    else:
        assert alike(odd, roles) == wanted


@pytest.mark.parametrize("what", [".weight_scale", ".weight", ".input_scale"])
def test_one_part_of_one_expert_that_is_not_there_is_told(what: str) -> None:
    tensors = listed((n, *header) for n, header in header_set("GLM-5.2-NVFP4").items())
    roles = roles_of(CONFIGS["GLM-5.2-NVFP4"])
    module = "model.layers.9.mlp.experts.7.down_proj"
    del tensors[module + what]
    if what == ".input_scale":
        assert {one.entries for one in alike(tensors, roles) if one.first.name.endswith("down_proj.weight")} >= {1, 255}
    else:
        with pytest.raises(CheckpointError, match=module.replace(".", r"\.")):
            alike(tensors, roles)


def test_inspect_a_folder(tmp_path: Path) -> None:
    layer = "model.layers.0"
    names = [
        "input_layernorm.weight",
        "mlp.gate.weight",
        "mlp.experts.0.up_proj.weight",
        "mlp.experts.3.up_proj.weight",
    ]
    shards = {"a.safetensors": ["lm_head.weight"], "b.safetensors": [f"{layer}.{name}" for name in names]}
    inspection = inspect(write_checkpoint(tmp_path, shards))
    assert json.loads(json.dumps(inspection.as_json())) == {
        "model_type": "qwen3_moe",
        "tensors": 5,
        "parameters": 30,
        "bytes": 60,
        "bits_per_weight": 16.0,
        "groups": [
            {"role": role, "mtp": False, "format": "bf16", "tensors": n, "parameters": 6 * n, "bytes": 12 * n}
            for role, n in (("routed_expert", 2), ("router", 1), ("lm_head", 1), ("norm", 1))
        ],
    }
