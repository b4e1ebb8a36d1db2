"""Odd checkpoints and odd command lines, drawn at random: kinds of damage, not instances of it."""

import copy
import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.header import serialize_header

ESCAPE = "\x1b[31mforged"
ODD_NAMES = (
    "a\nerror: forged",
    ESCAPE,
    "\udcff\udcfe.txt",
    "n" * 255,
    "\u202egpj.exe",
    "mtp.safetensors",
    "extra.safetensors",
    "model.bin",
    ".hidden",
    "[/red].txt",
    "{data}.txt",
    "config.json.partial",
    "a\x9b31m",
    "notes.txt",
    "additional_chat_templates/tool.jinja",
    "encoding/code.py",
    "encoding/\n/deep.py",
    "experts/1.json",
)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 123456\n"

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 15, 1.5, 1e308, -0.0, 10**18, 2**63, 10**400, -(10**400), "", "x", "\ud800",
    ESCAPE, "a\nb", "[/red]", "{0}", "n" * 5000, [], {}, [[]], [None], [0], ["x"], {"x": 1}, {"": None}, "float32",
    float("nan"), float("inf"), 999_999_999, "glm_moe_dsa", "qwen3_moe", "mixtral", "__import__('os')",
)  # fmt: skip

ODD_WORDS = (
    "", " ", "-", "-1", "0", "1", "2", "7", "1.5", "nan", "inf", "-inf", "1e309", "9" * 5000, "0x10", "١", "true",
    "a\nerror: forged", ESCAPE, "\udcff", "n" * 5000, "n" * 255, "[/red]", "{data}", "%s", ".", "..", "/proc/x",
    "/dev/null",
    "/dev/zero", "/dev/full", "/proc/self/mem", "pipe", "socket", "empty", "deep.json", "loop", "nowhere", "folder",
    "S", "Q", "S/config.json", "Q/model.safetensors.index.json", "data.jsonl", "OUT", "OUT/x.json", "out.json",
    "o.gguf", "5GB", "1B", "0B", "1M", "1k,4k", "b200", "b200x8", "h100x8,b200x4", "sglang", "vllm@0.26", "sweep",
    "gptq", "max", "headroom", "mse", "percentile:99", "nvfp4-mlp", "default", "auto", "cpu", "owner/name",
    "D/recipe.yaml", "D/policy.yaml", "D/prices.json", "D/ref.json", "D/suite.jsonl", "D/card.yaml", "D/a", "D/state",
    "2026-11-01", "tenant,day", "postgresql://127.0.0.1:9/x", "http://127.0.0.1:9", "0.5", "100", "acme",
    "reasoning:10@1", "full", "scales", "json", "sarif", "junit", "html",
)  # fmt: skip
"""Files of `surroundings` among them. Nothing that leads to the network."""


def surroundings(folder: Path) -> None:
    """What odd words name."""
    os.mkfifo(folder / "pipe")
    here = os.getcwd()
    os.chdir(folder)  # the path of a socket may have 108 bytes only
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    os.chdir(here)
    (folder / "empty").touch()
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "loop").symlink_to("loop")
    (folder / "nowhere").symlink_to("not-there")
    (folder / "folder").mkdir()
    rows = [{"input_ids": list(range(1, 40)), "kind": "a"}, {"input_ids": list(range(40, 3, -1)), "kind": "b"}]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def linked_copy(source: Path, target: Path) -> None:
    """A copy of hard links: whoever changes a file of it replaces the file."""
    shutil.copytree(source, target, copy_function=os.link)


class Damage:
    """Changes of one checkpoint folder, each drawn by a seed."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder, self.draw = folder, draw
        self.kinds: tuple[Callable[[], str], ...] = (
            self.special, self.link, self.content, self.content, self.odd_file, self.gone, self.cut, self.flip,
            self.json, self.json, self.json, self.json, self.json, self.json, self.header, self.header, self.big,
        )  # fmt: skip

    def apply(self) -> list[str]:
        """What was done, in words."""
        return [self.draw.choice(self.kinds)() for _ in range(self.draw.choice((1, 1, 1, 2, 3)))]

    def _file(self, ending: str = "") -> Path:
        """One of the folder's files, of those in its folders too."""
        files = sorted(p for p in self.folder.rglob("*") if os.fspath(p).endswith(ending) and not p.is_dir())
        return self.draw.choice(files) if files else self.folder / "config.json"

    @staticmethod
    def _bytes(path: Path) -> bytes:
        return path.read_bytes() if path.is_file() and path.stat().st_size < 10**7 else b""

    def _replace(self, path: Path, content: bytes) -> None:
        if os.path.lexists(path):
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def special(self) -> str:
        path = self._file()
        kind = self.draw.choice(("pipe", "socket", "/dev/zero", "/dev/null", "/dev/full", "folder"))
        if os.path.lexists(path):
            path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(kind if kind.startswith("/") else self.folder.parent / "socket")
        return f"{path.name} -> {kind}"

    def link(self) -> str:
        path = self.draw.choice((self._file(), self.folder / "notes.txt"))
        target = self.draw.choice(("/etc/passwd", "nowhere", path.name, "/proc/self/environ", ".", "../S", "/etc"))
        if os.path.lexists(path):
            path.unlink()
        path.symlink_to(target)
        return f"{path.name} -> {target}"

    def content(self) -> str:
        path = self._file()
        contents = {
            "empty": b"",
            "pointer": POINTER,
            "deep": b'{"a":' * 100_000,
            "deep list": b"[" * 50_000 + b"]" * 50_000,
            "digits": b'{"vocab_size": ' + b"9" * 5000 + b"}",
            "number": b"1",
            "null": b"null",
            "no UTF-8": b'{"\xff\xfe": 1}',
            "surrogate": b'{"\\ud800": "\\udfff"}',
            "noise": self.draw.randbytes(self.draw.choice((1, 7, 8, 9, 100, 5000))),
            "zeros": bytes(4096),
        }
        kind = self.draw.choice(sorted(contents))
        self._replace(path, contents[kind])
        return f"{path.name}: {kind}"

    def odd_file(self) -> str:
        name = self.draw.choice(ODD_NAMES)
        content = self.draw.choice((b"", b"text", POINTER, self.draw.randbytes(64), _shard({"odd\n\x1b[31m": [2]})))
        self._replace(self.folder / name, content)
        return f"with {name[:20]!r}"

    def gone(self) -> str:
        path = self._file()
        path.unlink()
        return f"without {path.name}"

    def cut(self) -> str:
        path = self._file()
        content = self._bytes(path)
        self._replace(path, content[: self.draw.randrange(len(content) + 1)])
        return f"{path.name} cut"

    def flip(self) -> str:
        path = self._file()
        content = bytearray(self._bytes(path))
        for _ in range(self.draw.choice((1, 3, 30))):
            if content:
                content[self.draw.randrange(min(len(content), 4000))] = self.draw.randrange(256)
        self._replace(path, bytes(content))
        return f"{path.name} flipped"

    def big(self) -> str:
        path = self._file()
        self._replace(path, b"{")
        os.truncate(path, 10 ** self.draw.choice((7, 9, 12)))
        return f"{path.name} big"

    def json(self) -> str:
        path = self._file(".json")
        try:
            document = json.loads(self._bytes(path))
        except (ValueError, OSError, RecursionError):
            return "nothing"
        for _ in range(self.draw.choice((1, 1, 2, 5))):
            document = mutated(document, self.draw)
        self._replace(path, _json(document))
        return f"{path.name} edited"

    def header(self) -> str:
        path = self._file(".safetensors")
        try:
            content = self._bytes(path)
            length = int.from_bytes(content[:8], "little")
            document = json.loads(content[8 : 8 + length])
        except (ValueError, OSError, RecursionError, OverflowError, MemoryError):
            return "nothing"
        for _ in range(self.draw.choice((1, 1, 3))):
            document = mutated(document, self.draw)
        text = _json(document)
        stated = len(text) + self.draw.choice((0, 0, 0, 0, 1, -1, 2**40, 2**63 - len(text)))
        self._replace(path, stated.to_bytes(8, "little") + text + content[8 + length :])
        return f"{path.name}: header edited"


def mutated(document: Any, draw: random.Random, depth: int = 0) -> Any:
    """One place of a document changed: another value, one less, one more."""
    if depth < 6 and isinstance(document, dict | list) and document and draw.random() < 0.85:
        changed = copy.copy(document)
        key = draw.choice(list(changed)) if isinstance(changed, dict) else draw.randrange(len(changed))
        how = draw.random()
        if how < 0.15:
            del changed[key]
        elif how < 0.25 and isinstance(changed, dict):
            changed[draw.choice(("x", "", "\ud800", "a\nb", "0"))] = draw.choice(ODD_VALUES)
        elif how < 0.35:
            changed[key] = {"x": changed[key]} if draw.random() < 0.5 else [changed[key]]
        else:
            changed[key] = mutated(changed[key], draw, depth + 1)
        return changed
    if isinstance(document, int) and not isinstance(document, bool) and draw.random() < 0.4:
        return draw.choice((document + 1, document - 1, -document, document * 2, document // 2))
    return draw.choice(ODD_VALUES)


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


def _shard(shapes: dict[str, list[int]]) -> bytes:
    header = serialize_header([(name, "F32", tuple(shape), 4 * shape[0]) for name, shape in shapes.items()], {})
    return header + bytes(sum(4 * shape[0] for shape in shapes.values()))


def odd_command(name: str, command: Any, sound: list[str], draw: random.Random) -> list[str]:
    """A command line: sound arguments with some odd ones, and options of the command with odd words."""
    line = [name, *sound]
    inner = getattr(command, "commands", {}).get(sound[0], command) if sound else command
    for _ in range(draw.choice((0, 1, 1, 2, 4))):
        options = [one for one in inner.params if one.opts[0].startswith("-")]
        if not options:
            break
        option = draw.choice(options)
        line.append(draw.choice(option.opts))
        if not getattr(option, "is_flag", False) or draw.random() < 0.05:
            line.append(draw.choice(ODD_WORDS))
    if draw.random() < 0.3 and len(line) > 1:
        line[draw.randrange(1, len(line))] = draw.choice(ODD_WORDS)
    if draw.random() < 0.1:
        line.append(draw.choice(ODD_WORDS))
    if draw.random() < 0.1 and len(line) > 1:
        del line[draw.randrange(1, len(line))]
    return line
