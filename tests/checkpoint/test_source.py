"""Opening a checkpoint folder: what is read, and every way in which a folder can be wrong."""

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.checkpoint.shard import Shard
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import CheckpointError, UnsupportedError

from .files import CONFIG, shard_bytes, write_checkpoint

TWO = {"model-1.safetensors": ["a", "b"], "model-2.safetensors": ["c"]}


def read(checkpoint: Checkpoint, name: str) -> bytes:
    tensor = checkpoint.tensors[name]
    buffer = bytearray(tensor.bytes)
    checkpoint.read_into(tensor, memoryview(buffer))
    return bytes(buffer)


def open_files(folder: Path) -> list[str]:
    """Those of this process that lie in the folder; what other tests left to the garbage collector does not count."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return [target for target in found if target.startswith(f"{folder}/")]


def refused(folder: Path, message: str) -> CheckpointError:
    """Opening fails with `message`, in one printable line, and leaves no file open."""
    with pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint.open(folder)
    assert open_files(folder) == []
    assert caught.value.message.replace(str(folder), "").isprintable()
    assert len(caught.value.message) < 1500
    return caught.value


def test_one_file(tmp_path: Path) -> None:
    with Checkpoint.open(write_checkpoint(tmp_path, {"model.safetensors": ["b", "a"]})) as checkpoint:
        assert list(checkpoint.tensors) == ["b", "a"]
        assert checkpoint.config == CONFIG
        assert checkpoint.bytes == 24
        assert read(checkpoint, "b") == bytes(12)
        assert read(checkpoint, "a") == b"\1" * 12


def test_shards_in_order_of_names_and_tensors_in_order_of_bytes(tmp_path: Path) -> None:
    with Checkpoint.open(str(write_checkpoint(tmp_path, TWO))) as checkpoint:
        assert [(tensor.name, tensor.shard) for tensor in checkpoint.tensors.values()] == [
            ("a", "model-1.safetensors"),
            ("b", "model-1.safetensors"),
            ("c", "model-2.safetensors"),
        ]
        assert read(checkpoint, "b") == b"\1" * 12


def test_files_that_the_index_does_not_name_are_left_alone(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TWO)
    (tmp_path / "consolidated.safetensors").write_bytes(b"not safetensors")
    with Checkpoint.open(tmp_path) as checkpoint:
        assert list(checkpoint.shards) == list(TWO)


def test_part_of_a_stack(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"model.safetensors": []})
    (tmp_path / "model.safetensors").write_bytes(shard_bytes(["x"], "F32", (3, 2, 2))[:-48] + bytes(range(48)))
    with Checkpoint.open(tmp_path) as checkpoint:
        part = checkpoint.tensors["x"].part(4, (2, 2))
        assert (part.shape, part.bytes) == ((2, 2), 16)
        buffer = bytearray(8)
        checkpoint.read_into(part, memoryview(buffer), offset=8)
        assert bytes(buffer) == bytes(range(24, 32))


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    """The hub's cache keeps a snapshot as links to blobs."""
    write_checkpoint(tmp_path / "blobs", {"model.safetensors": ["a"]})
    (tmp_path / "snapshot").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "snapshot" / name).symlink_to(f"../blobs/{name}")
    with Checkpoint.open(tmp_path / "snapshot") as checkpoint:
        assert list(checkpoint.tensors) == ["a"]


@pytest.mark.parametrize("path", ["missing", "a\0b", "x" * 5000], ids=["missing", "nul", "too long"])
def test_no_such_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        Checkpoint.open(tmp_path / path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"config\.json: missing"),
        (b"", r"config\.json: not valid JSON"),
        (b"{'a': 1}", r"config\.json: not valid JSON"),
        (b"\xff\xfe", r"config\.json: not valid JSON"),
        (b"[" * 100_000, r"config\.json: not valid JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", r"config\.json: not valid JSON"),
        (b"[1]", r"config\.json: not a JSON object"),
    ],
)
def test_bad_config(tmp_path: Path, text: bytes | None, message: str) -> None:
    write_checkpoint(tmp_path, {"model.safetensors": ["a"]})
    (tmp_path / "config.json").unlink()
    if text is not None:
        (tmp_path / "config.json").write_bytes(text)
    refused(tmp_path, message)


def test_config_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    refused(tmp_path, r"config\.json: is a folder, wanted a regular file")


def test_config_of_absurd_size(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"model.safetensors": ["a"]})
    os.truncate(tmp_path / "config.json", 10**9)
    refused(tmp_path, "1000000000 bytes are too many")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickle_only(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path, {})
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(UnsupportedError, match="pickled"):
        Checkpoint.open(tmp_path)


def test_no_weights(tmp_path: Path) -> None:
    refused(write_checkpoint(tmp_path, {}), r"holds no \.safetensors file")


def test_shards_without_index(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TWO)
    (tmp_path / INDEX_NAME).unlink()
    assert refused(tmp_path, "2 .* file.* but no model.safetensors.index.json").hint == "complete the download"


@pytest.mark.parametrize(
    "document", [{}, {"weight_map": {}}, {"weight_map": None}, {"weight_map": ["a"]}, {"weight_map": "a"}]
)
def test_index_without_a_map(tmp_path: Path, document: Any) -> None:
    write_checkpoint(tmp_path, TWO)
    (tmp_path / INDEX_NAME).write_text(json.dumps(document))
    refused(tmp_path, "has no weight_map")


@pytest.mark.parametrize(
    "shard",
    [
        "../model-1.safetensors",
        "./model-1.safetensors",
        "sub/model-1.safetensors",
        "/etc/x.safetensors",
        "..",
        "",
        "model-1.bin",
        "x\0.safetensors",
        "x\n.safetensors",
        "\x1b[31m.safetensors",
        "\ud800.safetensors",
        "n" * 300 + ".safetensors",
        "한" * 100 + ".safetensors",
        "n" * 100_000,
        None,
        1,
        ["model-1.safetensors"],
    ],
)
def test_index_names_no_file_of_the_folder(tmp_path: Path, shard: Any) -> None:
    (tmp_path / "sub").mkdir()
    write_checkpoint(tmp_path / "sub", TWO)
    write_checkpoint(tmp_path, TWO, {"a": shard, "b": "model-1.safetensors", "c": "model-2.safetensors"})
    refused(tmp_path, "weight_map sends 'a' to .*, wanted the name of")


def test_missing_shard(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TWO)
    (tmp_path / "model-2.safetensors").unlink()
    refused(tmp_path, "1 missing shard.*, first model-2.safetensors")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"d": "model-2.safetensors"}, "names tensor 'd', which model-2.safetensors does not hold"),
        ({"b": "model-2.safetensors"}, "sends 'b' to model-2.safetensors, it lies in model-1.safetensors"),
        ({"b": None}, "does not name tensor 'b', which model-1.safetensors holds"),
        ({"n" * 5000: "model-2.safetensors"}, "names tensor 'nnn"),
    ],
)
def test_index_and_headers_disagree(tmp_path: Path, changed: dict[str, str | None], message: str) -> None:
    true = {name: shard for shard, names in TWO.items() for name in names}
    weight_map = {name: shard for name, shard in (true | changed).items() if shard}
    refused(write_checkpoint(tmp_path, TWO, weight_map), message)


def test_tensor_in_two_shards(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"model-1.safetensors": ["a", "b"], "model-2.safetensors": ["c", "b"]})
    refused(tmp_path, "'b' stands in both model-1.safetensors and model-2.safetensors")


def test_damaged_shard_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TWO)
    os.truncate(tmp_path / "model-2.safetensors", 70)
    refused(tmp_path, r"model-2\.safetensors: the header claims")
    os.truncate(tmp_path / "model-2.safetensors", 0)
    refused(tmp_path, r"model-2\.safetensors: 0 bytes are too few")


def test_shard_that_cannot_be_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TWO)
    (tmp_path / "model-2.safetensors").unlink()
    (tmp_path / "model-2.safetensors").mkdir()
    refused(tmp_path, r"model-2\.safetensors: is a folder, wanted a regular file")


def test_shard_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, TWO)
    monkeypatch.chdir(tmp_path)  # the path of a socket may have 108 bytes only
    Path("model-2.safetensors").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("model-2.safetensors")
        refused(tmp_path, r"model-2\.safetensors: is a socket, wanted a regular file")


def test_shard_that_shrinks_before_its_header_is_read(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, TWO) / "model-1.safetensors"
    shard = Shard(path)
    os.truncate(path, 40)
    with pytest.raises(CheckpointError, match=r"ends at byte 40, \d+ bytes too early"):
        shard.header()
    shard.close()


def test_shard_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    with Checkpoint.open(write_checkpoint(tmp_path, TWO)) as checkpoint:
        stop = checkpoint.tensors["b"].stop
        os.truncate(tmp_path / "model-1.safetensors", stop - 5)
        assert read(checkpoint, "a") == bytes(12)
        with pytest.raises(CheckpointError, match=rf"ends at byte {stop - 5}, 5 bytes too early") as caught:
            read(checkpoint, "b")
        assert "changed while it was read" in str(caught.value.hint)


def test_closing_twice_closes_once(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path, TWO))
    assert len(open_files(tmp_path)) == 2
    checkpoint.close()
    checkpoint.close()
    assert open_files(tmp_path) == []
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(checkpoint, "a")
