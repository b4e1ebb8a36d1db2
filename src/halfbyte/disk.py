"""The one way to files of others, and the one check of where ours may go.

A name says nothing of what lies under it: a pipe never ends or never begins, a device fills memory, a file grows while
it is read. So what is opened is a regular file, what is read whole is bounded, and what is written over is compared by
device and inode, because bind mounts and links give one file many names.
"""

import os
import select
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from halfbyte.errors import CheckpointError, HalfbyteError, OutputError

STREAM_LIMIT_BYTES = 4_000_000_000
"""Of texts that are read whole: beyond that they are no sample any more."""

SILENCE_SECONDS = 60
"""That the writer of a pipe may take for its next bytes."""

MOST_FOLDERS = 100_000
REPORT_LIMIT_BYTES = 100_000_000
_PIECE_BYTES = 1 << 20

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}

Fault = type[HalfbyteError]


def kind_of(mode: int) -> str:
    """What a file is, in words. mode: its `st_mode`."""
    return _KINDS.get(stat.S_IFMT(mode), "a regular file" if stat.S_ISREG(mode) else "no regular file")


def reason(error: Exception) -> str:
    """Why the system refused."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def is_missing(path: Path) -> bool:
    """Whether nothing lies under that name. A link that leads nowhere is something."""
    return not os.path.lexists(path)  # os.path, unlike Path, has no OSError for a name that is too long


def open_regular(path: Path, fault: Fault = CheckpointError) -> int:
    """An open regular file, for reading. Raises `fault`; nothing that could wait or never end is opened."""
    try:
        mode = os.stat(path).st_mode
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK) if stat.S_ISREG(mode) else -1
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if isinstance(error, FileNotFoundError) and os.path.islink(path):
            raise fault(f"{path}: is a link to {os.readlink(path)}, which is not there") from None
        raise fault(f"{path}: cannot be opened: {reason(error)}") from None
    if file >= 0:
        if stat.S_ISREG(mode := os.fstat(file).st_mode):
            return file
        os.close(file)  # swapped in between
    raise fault(f"{path}: is {kind_of(mode)}, wanted a regular file")


def read_regular(path: Path, limit: int, fault: Fault = CheckpointError) -> bytes:
    """A regular file whole, of at most `limit` bytes. Raises `fault`."""
    file = open_regular(path, fault)
    try:
        size = os.fstat(file).st_size
        if size > limit:
            raise fault(f"{path}: {size} bytes are too many for this file, wanted at most {limit}")
        return _read(file, path, limit, fault)
    finally:
        os.close(file)


def read_text(path: Path, limit: int, fault: Fault = CheckpointError) -> str:
    """As `read_regular`, of UTF-8."""
    try:
        return read_regular(path, limit, fault).decode("utf-8")
    except UnicodeDecodeError as error:
        raise fault(f"{path}: not UTF-8 text at byte {error.start}") from None


def read_stream(path: Path, fault: Fault, limit: int = STREAM_LIMIT_BYTES) -> bytes:
    """A regular file, or a pipe to its end, whole. Raises `fault`, also for a pipe through which nothing comes.

    A pipe gives its bytes once: they are kept, for whoever reads it again in this process.
    """
    try:
        status = os.stat(path)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
            raise fault(f"{path}: is {kind_of(status.st_mode)}, wanted a regular file or a pipe")
        key = str(path), status.st_dev, status.st_ino
        if key in _drained:
            return _drained[key]
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise fault(f"{path}: cannot be opened: {reason(error)}") from None
    try:
        if stat.S_ISREG(status.st_mode):
            return _read(file, path, limit, fault)
        _drained[key] = _read(file, path, limit, fault, awaited=True)
        return _drained[key]
    finally:
        os.close(file)


_drained: dict[tuple[str, int, int], bytes] = {}
"""Name, device and inode of a pipe -> what came through it."""


def _read(file: int, path: Path, limit: int, fault: Fault, awaited: bool = False) -> bytes:
    """awaited: whether it is a pipe, whose writer may come late and write slowly."""
    content = bytearray()
    waiting = select.poll()
    waiting.register(file, select.POLLIN)
    try:
        while True:
            if awaited and not waiting.poll(SILENCE_SECONDS * 1000):
                raise fault(f"{path}: nothing came through this pipe for {SILENCE_SECONDS} s")
            piece = os.read(file, _PIECE_BYTES if awaited else max(_PIECE_BYTES, os.fstat(file).st_size - len(content)))
            if not piece:
                return bytes(content)
            content += piece
            if len(content) > limit:
                raise fault(f"{path}: more than {limit} bytes are too many for this file")
    except OSError as error:
        raise fault(f"{path}: cannot be read: {reason(error)}") from None


def same(one: Path, other: Path) -> bool:
    """Whether two names lead to one file or folder, through whatever links and mounts."""
    try:
        return os.path.samestat(os.stat(one), os.stat(other))
    except (OSError, ValueError):
        return False


def check_apart(src: Path, dst: Path) -> None:
    """Raises OutputError if writing to folder `dst` could touch `src`: it lies on, in or around it under any name, or
    no folder can have that name."""
    try:
        real_src, real_dst = src.resolve(), dst.resolve()
        os.stat(real_dst)
    except FileNotFoundError:
        pass
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        raise OutputError(f"{str(dst)[:200]}: {reason(error)}") from None
    above = any(same(src, one) for one in (real_dst, *real_dst.parents)) or any(
        same(dst, one) for one in (real_src, *real_src.parents)
    )
    if above or _holds(src, dst) or _holds(dst, src):
        raise OutputError(f"{dst}: lies in, around or on the source {src}", hint="choose a folder of its own")


def check_work(work: Path, inputs: Iterable[Path]) -> None:
    """Raises OutputError for a folder of temporary files that lies on or in one that is read."""
    real = Path(os.path.realpath(work))
    for given in inputs:
        if any(same(given, one) for one in (real, *real.parents)) or _holds(given, work):
            raise OutputError(f"{work}: lies on or in {given}, which is read", hint="choose a folder of its own")


def _holds(outer: Path, inner: Path) -> bool:
    """Whether a folder below `outer` is `inner`, mounted somewhere else."""
    try:
        wanted = os.stat(inner)
        return any(os.path.samestat(os.stat(folder), wanted) for folder in _folders(outer))
    except (OSError, ValueError):
        return False


def _folders(outer: Path) -> Iterator[str]:
    for number, (folder, _, _) in enumerate(os.walk(outer)):
        if number > MOST_FOLDERS:
            return
        yield folder


def check_output(path: Path, inputs: Iterable[Path]) -> None:
    """Raises OutputError if a file written as `path` would take the place of something that was read.

    inputs: files, and folders of checkpoints. Of a folder any file counts but one that Halfbyte left there as a report.
    """
    for given in inputs:
        if same(path, given):
            raise OutputError(f"{path}: is {given}, which is read", hint="choose another file")
        if not os.path.isdir(given):
            continue
        if same(path.parent, given) and _is_loaded(path.name):
            raise OutputError(f"{path}: engines would load it with the checkpoint {given}", hint="choose another name")
        for folder, _, names in os.walk(given):
            for name in names:
                one = Path(folder, name)
                if same(path, one) and (_is_loaded(name) or not _is_report(one)):
                    raise OutputError(f"{path}: would replace {one}, a file of the checkpoint", hint="choose another")


_LOADED = (".safetensors", ".index.json", ".gguf", ".bin", ".pt", ".pth", ".model", ".tiktoken", ".jinja", ".py")
_LOADED_NAMES = {
    "config.json",
    "generation_config.json",
    "hf_quant_config.json",
    "halfbyte.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
}


def _is_loaded(name: str) -> bool:
    return name in _LOADED_NAMES or name.endswith(_LOADED) or name.startswith(("README", "LICENSE"))


def _is_report(path: Path) -> bool:
    """Whether it says that Halfbyte wrote it, as all our reports do, or what a shown decision or a plan says."""
    try:
        content = read_regular(path, REPORT_LIMIT_BYTES)
    except HalfbyteError:
        return False
    return b"halfbyte" in content[:65536].lower() or b" by policy " in content or b'"plan_version"' in content
