"""Point by point: sources that are mounted, linked, no files at all, unreadable, or not what they seem."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from small import small_tensors, write_checkpoint, write_safetensors

from halfbyte import disk
from halfbyte.checkpoint.files import check_folder
from halfbyte.errors import CheckpointError, DataError, OutputError
from sound.conftest import Desk
from sound.generators import POINTER

READERS = {
    "quantize": ("quantize", "S", "OUT"),
    "improve": ("quantize", "S", "Q", "--improve", "--rounding", "gptq", "--calibrate", "data.jsonl"),
    "export": ("export", "S", "o.gguf"),
    "chat": ("chat", "S", "--prompt", "x"),
    "verify": ("verify", "S", "Q"),
}
"""Commands that copy files of S or hand them on."""


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@contextmanager
def bound(source: Path, place: Path) -> Iterator[None]:
    place.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "--bind", source, place], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("where", ["on it", "below it", "it below", "a folder of it"])
def test_a_source_behind_a_mount_is_never_written_to(where: str, desk: Desk) -> None:
    source, mount = desk.folder / "S", desk.folder / "M"
    (source / "encoding").mkdir()
    before = files_of(source)
    if where == "it below":
        pairs = (source, mount / "below"), (source, mount)
    elif where == "below it":
        pairs = (source, mount), (source, mount / "encoding")
    else:
        pairs = (source if where == "on it" else source / "encoding", mount), (source, mount)
    with bound(*pairs[0]):
        message = desk.refused("quantize", pairs[1][0], pairs[1][1], "--overwrite")
    assert "lies in, around or on the source" in message
    assert files_of(source) == before


@pytest.mark.parametrize("destination", ["S", "L", "S/new", "S/new/er", ".", "L/new", "./S/../S"])
def test_a_destination_in_around_or_on_the_source(destination: str, desk: Desk) -> None:
    (desk.folder / "L").symlink_to("S")
    before = files_of(desk.folder / "S")
    for command in (("quantize", "S"), ("quantize", "L")):
        assert "the source" in desk.refused(*command, destination, "--overwrite")
    assert files_of(desk.folder / "S") == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("gate", "Q", "-o", "Q/config.json"),
        ("gate", "Q", "-o", "Q/model-00001-of-00001.safetensors"),
        ("gate", "Q", "-o", "Q/README.md"),
        ("gate", "Q", "-o", "Q/halfbyte.json"),
        ("gate", "Q", "-o", "Q/tokenizer.json"),
        ("gate", "Q", "-o", "Q/notes.txt"),
        ("gate", "Q", "-o", "link"),
        ("gate", "Q", "-o", "hard"),
        ("gate", "Q", "-o", "policy.yaml", "--policy", "policy.yaml"),
        ("gate", "Q", "-o", "S/config.json", "--source", "S"),
        ("gate", "Q", "--bom", "Q/model-00001-of-00001.safetensors"),
        ("gate", "Q", "--bom", "Q/new.safetensors"),
        ("plan", "Q", "--gpu", "b200", "--gpus", "1", "-o", "Q/config.json"),
        ("plan", "Q/config.json", "--gpu", "b200", "--gpus", "1", "-o", "Q/config.json"),
        ("calibrate", "S", "--data", "data.jsonl", "-o", "S/config.json", "--overwrite"),
        ("calibrate", "S", "--data", "data.jsonl", "-o", "data.jsonl", "--overwrite"),
        ("calibrate", "S", "--data", "data.jsonl", "-o", "o.json", "--work", "S"),
        ("calibrate", "S", "--data", "data.jsonl", "-o", "o.json", "--work", "S/work"),
        ("compare", "S", "Q", "--data", "data.jsonl", "--work", "Q"),
        ("compare", "S", "Q", "--data", "data.jsonl", "--work", "S/work"),
        ("search", "S", "--data", "data.jsonl", "--bits", "9", "-o", "S/config.json"),
        ("search", "S", "--data", "data.jsonl", "--bits", "9", "--work", "S"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_no_output_takes_the_place_of_an_input(arguments: tuple[str, ...], desk: Desk) -> None:
    (desk.folder / "link").symlink_to("Q/config.json")
    (desk.folder / "hard").hardlink_to(desk.folder / "Q/config.json")
    (desk.folder / "Q/notes.txt").write_text("mine")
    (desk.folder / "policy.yaml").write_text("version: 1\nname: mine\n")
    before = files_of(desk.folder)
    desk.refused(*arguments)
    assert files_of(desk.folder) == before


@pytest.mark.parametrize("form", ["table", "json", "sarif", "junit", "html"])
def test_a_report_beside_the_checkpoint_may_be_written_again(form: str, desk: Desk) -> None:
    for _ in range(2):
        ended = desk.run("gate", "Q", "--format", form, "-o", "Q/report.out", "--bom", "Q/bom.json")
        assert (ended.code, ended.stderr) in ((1, ""), (0, ""), (3, "")), ended


@pytest.mark.parametrize("device", ["/dev/null", "/dev/stdout"])
def test_a_report_to_a_device_replaces_no_device(device: str, desk: Desk) -> None:
    before = os.lstat(device)
    assert desk.run("gate", "Q", "-o", device).code in (0, 1, 3)
    assert os.path.samestat(before, os.lstat(device))


def test_a_cache_in_the_source_is_refused(desk: Desk) -> None:
    message = desk.run("chat", "S", "--prompt", "x", env={"HALFBYTE_CACHE": str(desk.folder / "S" / "cache")})
    assert (message.code, "the source" in message.stderr) == (1, True), message.stderr


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("name", ["notes.txt", "tokenizer.json", "model-00001-of-00002.safetensors", "more/deep.txt"])
def test_links_out_of_the_source_are_refused_by_name(command: str, name: str, desk: Desk) -> None:
    path, secret = desk.folder / "S" / name, desk.folder / "secret"
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        shutil.copy(path, secret)
        path.unlink()
    else:
        secret.write_text("secret")
    path.symlink_to(secret)
    message = desk.refused(*READERS[command])
    assert f"{name}: is a link that leads out of the folder, to {secret}" in message
    if name == "notes.txt":
        assert "leads out" not in desk.run(*READERS[command], "--follow-links").stderr


def test_links_that_are_followed_are_copied(desk: Desk) -> None:
    (desk.folder / "secret").write_text("public")
    (desk.folder / "S/notes.txt").symlink_to(desk.folder / "secret")
    assert desk.run("quantize", "S", "OUT", "--follow-links").code == 0
    assert (desk.folder / "OUT/notes.txt").read_text() == "public"
    assert not (desk.folder / "OUT/notes.txt").is_symlink()


def test_links_inside_and_of_the_hubs_cache_are_welcome(desk: Desk) -> None:
    snapshot, blobs = desk.folder / "hub/snapshots/abc", desk.folder / "hub/blobs"
    (snapshot / "sub").mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted((desk.folder / "S").iterdir())):
        shutil.move(path, blobs / f"h{number}")
        (snapshot / path.name).symlink_to(f"../../blobs/h{number}")
    (blobs / "deep").write_text("deep")
    (snapshot / "sub/deep.txt").symlink_to("../../../blobs/deep")
    (snapshot / "again.txt").symlink_to("sub/deep.txt")
    assert desk.run("quantize", "hub/snapshots/abc", "OUT").code == 0
    assert (desk.folder / "OUT/again.txt").read_text() == (desk.folder / "OUT/sub/deep.txt").read_text() == "deep"
    assert desk.run("verify", "hub/snapshots/abc", "OUT").code == 0


@pytest.mark.parametrize("place", ["blobs/h", "../blobs/h", "other/blobs/h"])
def test_a_folder_called_blobs_makes_no_hub(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    target = folder.parent / place
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("x")
    (folder / "f").symlink_to(target)
    with pytest.raises(CheckpointError, match="leads out"):
        check_folder(folder, follow_links=False)


SPECIAL = {"a pipe": "pipe", "a socket": "socket", "a character device": "/dev/zero", "a folder": "folder"}


def put_special(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with monkeypatch.context() as patched, socket.socket(socket.AF_UNIX) as listener:
            patched.chdir(path.parent)
            listener.bind(path.name)
    else:
        path.symlink_to(kind)


@pytest.mark.parametrize("words", SPECIAL)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"])
def test_what_is_no_regular_file_is_not_opened(
    name: str, words: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_special(desk.folder / "S" / name, SPECIAL[words], monkeypatch)
    plain = (("inspect", "S"), ("plan", "S", "--gpu", "b200", "--gpus", "1"))
    for command in (*plain, *READERS.values()):
        message = desk.refused(*command)
        assert name in message
        assert words in message or "leads out of the folder" in message


@pytest.mark.parametrize("words", SPECIAL)
def test_side_files_that_are_no_files(words: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    if words != "a folder":
        put_special(desk.folder / "S/tokenizer.json", SPECIAL[words], monkeypatch)
        for command in READERS.values():
            message = desk.refused(*command)
            assert "tokenizer.json" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ("quantize", "S", "OUT", "--recipe"),
        ("quantize", "S", "OUT", "--input-scale"),
        ("gate", "Q", "--policy"),
        ("gate", "Q", "--cluster"),
        ("gate", "--verify-decision"),
        ("plan", "Q", "--gpu", "b200", "--gpus", "1", "--hardware"),
        ("plan", "Q", "--gpu", "b200", "--gpus", "1", "--traffic"),
        ("plan", "Q", "--gpu", "b200", "--gpus", "1", "--routing"),
        ("verdict",),
        ("evaluate", "--power", "--suite", "x.jsonl", "--plan"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
@pytest.mark.parametrize("kind", ["socket", "/dev/zero"])
def test_options_that_name_what_is_no_file(
    arguments: tuple[str, ...], kind: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_special(desk.folder / "odd", kind, monkeypatch)
    (desk.folder / "x.jsonl").write_text("")
    ended = desk.run(*arguments, "odd")
    assert ended.code in (1, 2), ended
    assert "wanted a regular file" in ended.stderr or "DataError" in ended.stderr or ended.code == 1, ended.stderr


def test_data_may_be_a_pipe(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b'{"text": 1}\n')
    os.close(write)
    path = Path(f"/dev/fd/{read}")
    assert disk.read_stream(path, DataError) == disk.read_stream(path, DataError) == b'{"text": 1}\n'
    os.close(read)


def test_a_pipe_that_says_nothing_and_one_that_says_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "SILENCE_SECONDS", 0.05)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="nothing came through this pipe"):
        disk.read_stream(tmp_path / "pipe", DataError)
    with subprocess.Popen(["sh", "-c", f"cat /dev/zero > {tmp_path}/pipe"]) as writer:
        monkeypatch.setattr(disk, "SILENCE_SECONDS", 5)
        with pytest.raises(DataError, match="more than 1000000 bytes"):
            disk.read_stream(tmp_path / "pipe", DataError, limit=1_000_000)
        writer.kill()


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"more than 10 bytes|too many"):
        disk.read_regular(Path("/proc/self/status"), 10)  # whose size is stated as 0


def test_folders_and_odd_names_come_along_or_are_named(desk: Desk) -> None:
    source = desk.folder / "S"
    for name in ("encoding/deep/code.py", "additional_chat_templates/tool.jinja", "experts/1.json", "assets/a b.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    left = {".gitattributes": "hidden", "old.bin": "another form", os.fsdecode(b"\xff.txt"): "UTF-8", "a\nb": "printed"}
    for name in left:
        (source / name).write_text("x")
    (source / ".cache").mkdir()
    (source / "linked").symlink_to("encoding")
    write_safetensors(source / "consolidated.safetensors", small_tensors("Qwen3-30B-A3B")[1])
    ended = desk.run("quantize", "S", "OUT", "--json")
    assert ended.code == 0, ended.stderr
    copied = files_of(desk.folder / "OUT")
    for name in ("encoding/deep/code.py", "additional_chat_templates/tool.jinja", "experts/1.json", "assets/a b.txt"):
        assert copied[name] == name.encode()
    warnings = "\n".join(json.loads(ended.stdout)["warnings"])
    for name in (".gitattributes", ".cache", "old.bin", r"\xff.txt", r"a\nb", "linked", "consolidated.safetensors"):
        assert name in warnings
    assert set(copied) & {".gitattributes", "old.bin", "consolidated.safetensors"} == set()
    rows = {row["file"] for row in json.loads(copied["halfbyte.json"])["files"]}
    assert "encoding/deep/code.py" in rows
    assert desk.run("verify", "S", "OUT").code == 0
    (desk.folder / "OUT/encoding/deep/code.py").write_text("changed")
    assert desk.run("verify", "S", "OUT").code == 1


def mtp_apart(folder: Path, file: str) -> int:
    """GLM-5.2 with its MTP layer in a file that no index names. Returns how many tensors that holds."""
    config, tensors = small_tensors("GLM-5.2")
    layer = f"model.layers.{config['num_hidden_layers']}."
    write_checkpoint(folder, config, {name: t for name, t in tensors.items() if not name.startswith(layer)})
    apart = {name: t for name, t in tensors.items() if name.startswith(layer)}
    write_safetensors(folder / file, apart)
    return len(apart)


@pytest.mark.parametrize("file", ["mtp.safetensors", "model-mtp.safetensors", "nextn_layer.safetensors"])
def test_an_mtp_layer_in_a_file_of_its_own_is_taken(file: str, desk: Desk) -> None:
    count = mtp_apart(desk.folder / "G", file)
    ended = desk.run("quantize", "G", "OUT", "--json")
    assert ended.code == 0, ended.stderr
    assert [one for one in json.loads(ended.stdout)["warnings"] if "MTP" in one or file in one] == []
    index = json.loads((desk.folder / "OUT/model.safetensors.index.json").read_text())["weight_map"]
    assert sum(name.startswith("model.layers.5.") for name in index) >= count
    assert desk.run("verify", "G", "OUT").code == 0
    found = json.loads(desk.run("inspect", "G", "--json").stdout)
    assert sum(group["tensors"] for group in found["groups"] if group["mtp"]) == count


def test_a_file_that_is_no_mtp_layer_is_named(desk: Desk) -> None:
    mtp_apart(desk.folder / "G", "mtp.safetensors")
    shutil.copy(desk.folder / "G/model-00001-of-00002.safetensors", desk.folder / "G/mtp2.safetensors")
    (desk.folder / "G/mtp.safetensors").write_bytes(b"not safetensors, not at all")
    warnings = " ".join(json.loads(desk.run("quantize", "G", "OUT", "--json").stdout)["warnings"])
    assert "mtp.safetensors" in warnings
    assert "mtp2.safetensors" in warnings


@pytest.mark.parametrize("name", ["tokenizer.json", "LICENSE", "more/x.txt", "model-00001-of-00002.safetensors"])
def test_a_pointer_of_git_lfs_is_one_error(name: str, desk: Desk) -> None:
    path = desk.folder / "S" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(POINTER)
    for command in READERS.values():
        assert f"{name}: is a git-LFS pointer" in desk.refused(*command)
    assert f"{name} is a git-LFS pointer" in desk.run("gate", "S").stdout.replace(":", "") or name == "LICENSE"
    if name.endswith(".safetensors"):
        assert "git-LFS" in desk.refused("inspect", "S")


def test_files_that_may_not_be_read(desk: Desk) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to become somebody else")
    for parent in (desk.folder, *list(desk.folder.parents)[:3]):
        parent.chmod(0o777)
    (desk.folder / "S/README.md").chmod(0)
    for command in READERS.values():
        ended = desk.run(*command, user=65534)
        assert (ended.code, "README.md: cannot be read: Permission denied" in ended.stderr) == (1, True), ended
    assert not (desk.folder / "OUT").exists()
    (desk.folder / "S").chmod(0)
    for command in (("plan", "S", "--gpu", "b200", "--gpus", "1"), ("gate", "S"), ("quantize", "S", "OUT")):
        ended = desk.run(*command, user=65534)
        assert ended.code in (1, 2), ended
        assert "denied" in ended.stderr or "not readable" in ended.stderr
    (desk.folder / "S").chmod(0o755)


def test_a_source_that_changes_and_goes_away_during_the_run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from halfbyte.api import quantize
    from halfbyte.quantize import threads

    monkeypatch.chdir(desk.folder)
    execute = threads.Run.execute

    def vanishing(run: threads.Run) -> object:
        Path("S/tokenizer.json").unlink()
        Path("S/model-00002-of-00002.safetensors").unlink()
        return execute(run)

    monkeypatch.setattr(threads.Run, "execute", vanishing)
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors: (went away|cannot be)"):
        quantize("S", "OUT")
    assert not Path("OUT").exists()


def test_places_compared(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    disk.check_apart(tmp_path / "a", tmp_path / "ab")
    disk.check_work(tmp_path, [tmp_path / "a"])
    with pytest.raises(OutputError, match="lies on or in"):
        disk.check_work(tmp_path / "a/b/c", [tmp_path / "a"])
