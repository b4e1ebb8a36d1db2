"""Bad input ends in one clear error, from the thread where it was met."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small import small_tensors, write_checkpoint

from halfbyte.errors import CheckpointError, HalfbyteError, UsageError
from halfbyte.stream.executor import Streamed
from stream.models import CHANGES, checkpoint, sequences


def run(folder: Path) -> None:
    with Streamed.open(folder) as model:
        model.start(sequences())
        while model.next_layer < model.layers:
            model.step()
        model.logits(0, 0, 1)


@pytest.mark.parametrize(
    "missing",
    [
        "model.layers.3.mlp.experts.2.up_proj.weight",
        "model.layers.1.self_attn.q_a_proj.weight",
        "model.layers.4.mlp.gate.e_score_correction_bias",
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
    ],
)
def test_a_missing_tensor_is_named(tmp_path: Path, missing: str) -> None:
    config, tensors = small_tensors("GLM-5.2", 3, **CHANGES["GLM-5.2"])
    del tensors[missing]
    with pytest.raises(CheckpointError, match=missing.replace(".", r"\.")):
        run(write_checkpoint(tmp_path / "model", config, tensors))


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    config, tensors = small_tensors("GLM-5.2", 3, **CHANGES["GLM-5.2"])
    tensors["model.layers.2.self_attn.o_proj.weight"] = tensors["model.layers.2.self_attn.o_proj.weight"][:, :-1]
    with pytest.raises(CheckpointError, match=r"o_proj.*wants"):
        run(write_checkpoint(tmp_path / "model", config, tensors))


def test_a_shard_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint(), tmp_path / "model"))
    with Streamed.open(folder) as model:
        for shard in folder.glob("*.safetensors"):
            with open(shard, "r+b") as file:
                file.truncate(shard.stat().st_size // 3)
        with pytest.raises(CheckpointError, match="too early"):  # from the reading thread
            everything(model)


def everything(model: Streamed) -> None:
    model.start(sequences())
    while model.next_layer < model.layers:
        model.step()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Streamed.open(checkpoint(), device="tpu"), "cpu or cuda"),
        (lambda: Streamed.open(checkpoint(), device="no such"), "cpu or cuda"),
        (lambda: Streamed.open(checkpoint()).start([]), "no sequences"),
        (lambda: Streamed.open(checkpoint()).start([torch.zeros(0, dtype=torch.int64)]), "sequence 0"),
        (lambda: Streamed.open(checkpoint()).start([torch.tensor([1, 96])]), "0 to 95"),
        (lambda: Streamed.open(checkpoint(), attention="sdpa").start(sequences()), "eager or sparse"),
        (lambda: Streamed.open(checkpoint()).step(), "start"),
        (lambda: Streamed.open(checkpoint()).logits(0, 0, 1), "step"),
    ],
)
def test_what_cannot_be_asked(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        wrong()
    assert message in f"{error.value.message} {error.value.hint}"


@pytest.mark.parametrize("change", [{"model_type": "llama"}, {"hidden_size": "x"}, {"num_hidden_layers": 7}])
def test_a_config_that_does_not_fit(tmp_path: Path, change: dict[str, object]) -> None:
    folder = Path(shutil.copytree(checkpoint(), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(HalfbyteError):
        run(folder)
