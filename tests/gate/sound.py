"""Sound checkpoints that look odd: none of them may be refused."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .corpus import keep_layer
from .draft import Draft


@dataclass(frozen=True)
class Variant:
    """base and options as those of a broken case."""

    change: Callable[[Draft], None]
    base: str = "tiny"
    options: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return self.change.__name__


SOUND: list[Variant] = []


Change = Callable[[Draft], None]
Register = Callable[[Change], Change]


def sound(base: str = "tiny", policy: dict[str, Any] | None = None, **options: Any) -> Register:
    def register(change: Callable[[Draft], None]) -> Callable[[Draft], None]:
        SOUND.append(Variant(change, base, options, policy))
        return change

    return register


@sound()
def as_made(d: Draft) -> None:
    """Straight from `halfbyte quantize`."""


@sound(depth="full", source="tiny")
def as_made_read_whole_against_its_source(d: Draft) -> None:
    """Every byte and every rule."""


@sound(base="mtp", depth="full")
def with_an_mtp_layer(d: Draft) -> None:
    """In 16 bits, as SGLang wants it."""


@sound(depth="scales")
def without_evidence(d: Draft) -> None:
    d.evidence = None


@sound(depth="full")
def in_seven_shards(d: Draft) -> None:
    d.shards = 7


@sound()
def in_one_file_without_an_index(d: Draft) -> None:
    d.with_index = False


@sound()
def without_metadata_in_the_index(d: Draft) -> None:
    d.index = lambda index: index.pop("metadata")


@sound(depth="scales")
def weight_only(d: Draft) -> None:
    d.drop(".input_scale")
    d.block["quant_algo"] = (d.quant or {})["quantization"]["quant_algo"] = "W4A16_NVFP4"
    d.block["config_groups"]["group_0"]["input_activations"] = None


@sound()
def last_layer_kept(d: Draft) -> None:
    keep_layer(d, 5)


@sound()
def first_and_last_moe_layers_kept(d: Draft) -> None:
    keep_layer(d, 1)
    keep_layer(d, 5)


@sound()
def only_the_flat_block(d: Draft) -> None:
    d.quant = None


@sound()
def only_the_nested_block(d: Draft) -> None:
    (d.config or {}).pop("quantization_config")


@sound()
def fp8_cache_declared(d: Draft) -> None:
    d.block["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}
    (d.quant or {})["quantization"]["kv_cache_quant_algo"] = "FP8"


@sound()
def router_not_listed_as_nvidia_publishes_it(d: Draft) -> None:
    d.exclude(lambda entries: [entry for entry in entries if not entry.endswith("mlp.gate")])


@sound()
def exclusions_by_global_globs(d: Draft) -> None:
    d.exclude(lambda entries: ["lm_head", "model.embed_tokens", "model.layers.0.*", "*self_attn*", "*shared_experts*"])


@sound()
def exclusions_one_by_one(d: Draft) -> None:
    linears = [
        name.removesuffix(".weight")
        for name, (dtype, shape, _) in d.tensors.items()
        if dtype == "BF16" and len(shape) == 2
    ]
    d.exclude(lambda entries: linears)


@sound()
def list_under_its_other_name(d: Draft) -> None:
    d.block["exclude_modules"] = d.block.pop("ignore")


@sound()
def unknown_config_keys(d: Draft) -> None:
    d.config = {**(d.config or {}), "use_cache": False, "our_note": {"x": [1, 2]}, "transformers_version": "5.23.0"}


@sound()
def routers_in_32_bits(d: Draft) -> None:
    for name in [name for name in d.tensors if name.endswith("mlp.gate.weight")]:
        d.put(name, d.array(name).astype(np.float32))


@sound(depth="scales")
def experts_calibrated_one_by_one(d: Draft) -> None:
    random = np.random.default_rng(1)
    for name in [name for name in d.tensors if name.endswith("gate_proj.input_scale")]:
        value = float(np.exp(random.normal(-5, 0.7)))
        d.scalar(name, value)
        d.scalar(name.replace("gate_proj", "up_proj"), value)
        d.scalar(name.replace("gate_proj", "down_proj"), value * 9)


@sound(depth="full")
def one_dead_expert(d: Draft) -> None:
    module = "model.layers.2.mlp.experts.3"
    for part in ("gate_proj", "up_proj", "down_proj"):
        d.put(f"{module}.{part}.weight", np.zeros_like(d.array(f"{module}.{part}.weight")))
        d.put(f"{module}.{part}.weight_scale", np.full_like(d.array(f"{module}.{part}.weight_scale"), 0x38), "F8_E4M3")
        d.scalar(f"{module}.{part}.weight_scale_2", 2.0**-12)


@sound(depth="full")
def four_over_six_scales(d: Draft) -> None:
    """amax / (6 * 256): the largest block scale is 256."""
    from halfbyte.formats.nvfp4.codec import decode, encode
    from halfbyte.formats.nvfp4.reference import Encoded

    for part in ("gate_proj", "up_proj"):
        module = f"model.layers.2.mlp.experts.3.{part}"
        scale_2 = np.float32(d.array(f"{module}.weight_scale_2")[()])
        values = decode(Encoded(d.array(f"{module}.weight"), d.array(f"{module}.weight_scale"), scale_2))
        encoded, _ = encode(values, scale_2=np.float32(scale_2 * 448 / 256))
        d.put(f"{module}.weight", encoded.codes)
        d.put(f"{module}.weight_scale", encoded.scales, "F8_E4M3")
        d.scalar(f"{module}.weight_scale_2", float(encoded.scale_2))


@sound()
def licensed_under_mit(d: Draft) -> None:
    d.side["README.md"] = b"---\nlicense: mit\nbase_model: zai-org/GLM-5.2\n---\n# A model\n"


@sound()
def card_without_front_matter(d: Draft) -> None:
    d.side["README.md"] = b"# A model\n\n---\n\nlicense: see below\n"


@sound()
def prose_and_pictures_beside(d: Draft) -> None:
    d.side |= {"figures/loss.png": b"\x89PNG", "NOTICE": b"x", "examples/run.py": b"print(1)", "data.jsonl": b"{}"}


@sound()
def card_edited_after_the_fact(d: Draft) -> None:
    from .corpus import harden

    harden(d, lambda folder: (folder / "README.md").open("a").write("More words.\n"))


@sound()
def template_in_the_tokenizer_config(d: Draft) -> None:
    document = json.loads(d.side["tokenizer_config.json"])
    document["chat_template"] = [
        {"name": "default", "template": d.side.pop("chat_template.jinja").decode()},
        {"name": "strict", "template": "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}"
         "{% endif %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"},
    ]  # fmt: skip
    d.side["tokenizer_config.json"] = json.dumps(document).encode()


@sound()
def without_a_chat_template(d: Draft) -> None:
    del d.side["chat_template.jinja"]


@sound(depth="full")
def in_a_hub_cache(d: Draft) -> None:
    """Files are links into a folder of blobs, as the hub's own client lays them out."""

    def link(folder: Path) -> None:
        import hashlib

        blobs = folder.parent / "blobs"
        blobs.mkdir()
        snapshot = folder.parent / "snapshots" / "main"
        snapshot.mkdir(parents=True)
        for path in list(folder.iterdir()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            path.rename(blobs / digest)
            (snapshot / path.name).symlink_to(Path("../../blobs") / digest)
        folder.rmdir()
        folder.symlink_to(snapshot)

    d.after, d.evidence = link, None


@sound()
def gated_before(d: Draft) -> None:
    d.side["gate.json"] = b'{"decision": "refused"}'


@sound(engine="sglang@0.5.23")
def for_sglang(d: Draft) -> None:
    """A list that only vLLM would misread."""
    d.exclude(lambda entries: [*entries, "model.layers.3"])


@sound(engine="vllm")
def for_vllm(d: Draft) -> None:
    """vLLM writes algorithm names in any case."""
    d.block["quant_algo"] = (d.quant or {})["quantization"]["quant_algo"] = "nvfp4"


@sound(hardware="b200x8")
def on_eight_blackwells(d: Draft) -> None:
    """Four heads: two replicas of four ranks."""


@sound(hardware="h100x4")
def on_four_hoppers(d: Draft) -> None:
    """Weight-only, which the policy accepts."""


@sound(
    policy={
        "waivers": [
            {"rule": "supply.remote-code", "owner": "ml-platform", "reason": "reviewed", "expires": "2999-01-01"},
        ]
    }
)
def remote_code_waived(d: Draft) -> None:
    (d.config or {})["auto_map"] = {"AutoConfig": "configuration_glm.GlmConfig"}


@sound(policy={"evidence": [{"kind": "compare", "max_kl": 0.1, "slices": ["korean"], "min_context": 4096}]})
def compared_as_asked(d: Draft) -> None:
    from .corpus import compared, of_these_shards

    compared(
        d,
        slices={"language": {"Korean": {"tokens": 5000}, "english": {"tokens": 9000}}},
        positions=[{"start": 0, "stop": 128}, {"start": 2048, "stop": 4096}],
    )
    of_these_shards(d)


@sound(depth="scales")
def block_scales_of_one_power(d: Draft) -> None:
    """A matrix cast from MXFP4: every block scale is a power of two."""
    module = "model.layers.2.mlp.experts.3.down_proj"
    scales = d.array(f"{module}.weight_scale")
    d.put(f"{module}.weight_scale", (scales & 0x78).astype(np.uint8) | 0, "F8_E4M3")


@sound()
def norms_in_16_bit_floats(d: Draft) -> None:
    for name in [name for name in d.tensors if "layernorm" in name]:
        dtype, shape, _ = d.tensors[name]
        assert dtype == "BF16"
        d.tensors[name] = ("F16", shape, d.array(name).astype(np.float16).tobytes())
