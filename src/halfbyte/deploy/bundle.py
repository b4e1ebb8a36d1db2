"""Across an air gap: checkpoint, decision, manifests and the list of images in one folder, with a hash of each file.

`unbundle` takes such a folder, or any folder or https:// address with a list of hashes, and puts down only what is as
the list says. What a run has put down and checked, the next one finds.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import httpx

from halfbyte.checkpoint.writer import copy_file, hash_file, output_error, partial, write_whole
from halfbyte.deploy.approval import approved, weights_hashes
from halfbyte.deploy.checks.documents import containers, templates
from halfbyte.deploy.reading import read_manifests
from halfbyte.disk import check_apart, read_regular
from halfbyte.errors import CheckpointError, HalfbyteError, OutputError, UsageError, said
from halfbyte.evidence.names import DECISION
from halfbyte.evidence.record import JsonDocument
from halfbyte.progress import Progress, Silent

LIST = "bundle.json"
VERSION = 1
CHECKPOINT, MANIFESTS, IMAGES = "checkpoint", "manifests", "images.txt"
LIST_LIMIT_BYTES = 64_000_000
PIECE_BYTES = 8 << 20
SILENCE_S = 60.0


class BundleError(HalfbyteError):
    """A bundle that is not what its list says."""

    kind = "bundle"


class BundleList(JsonDocument):
    """`bundle.json`. files: path -> SHA-256. gated: whether the gate passed the checkpoint."""

    what: ClassVar = "the list of a bundle"
    version: ClassVar = ("bundle_version", VERSION)
    hint: ClassVar = "halfbyte bundle writes it"
    error: ClassVar = BundleError

    bundle_version: int
    checkpoint: str
    gated: bool
    images: list[str]
    files: dict[str, str]


@dataclass(frozen=True)
class Bundled:
    """files: how many. copied, bytes: of those that were not there yet."""

    folder: Path
    files: int
    copied: int
    bytes: int
    images: list[str]

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "files": self.files,
            "copied": self.copied,
            "bytes": self.bytes,
            "images": self.images,
        }


def bundle(
    target: str | Path,
    out: str | Path,
    *,
    manifests: str | Path | None = None,
    no_gate: bool = False,
    progress: Progress | None = None,
) -> Bundled:
    """Put checkpoint `target` and the manifests that `deploy` wrote into folder `out`. no_gate: see `deploy`.

    Raises HalfbyteError; a run that was cut off goes on when it is called again, and `bundle.json` comes last.
    """
    target, out, progress = Path(target), Path(out), progress or Silent()
    if not target.is_dir():
        raise CheckpointError(f"{target}: no such folder", hint="give a checkpoint folder")
    check_apart(target, out)
    decision = None if no_gate else approved(target)
    below = f"{CHECKPOINT}/{target.resolve().name}"
    known = {f"{below}/{name}": digest for name, digest in weights_hashes(target, decision).items()}
    sources = {name: target / name.removeprefix(f"{below}/") for name in known}
    if decision is not None:
        sources[f"{below}/{DECISION}"] = target / DECISION
    images: list[str] = []
    if manifests is not None:
        folder = Path(manifests)
        images = sorted(set(_images(folder)))
        found = (path for path in sorted(folder.rglob("*")) if path.is_file())
        sources |= {f"{MANIFESTS}/{path.relative_to(folder).as_posix()}": path for path in found}
    _claim(out)
    hashes, copied, total = {}, 0, 0
    progress.start("bundle", sum(path.stat().st_size for path in sources.values()))
    for name, source in sources.items():
        there, wanted = out / name, known.get(name)
        if _is_there(there, source, wanted):
            hashes[name] = str(wanted)
            progress.advance(source.stat().st_size)
            continue
        size, digest = copy_file(source, there, CheckpointError)
        if wanted is not None and digest != wanted:
            there.unlink()
            raise CheckpointError(f"{source}: SHA-256 is {digest[:12]}, its evidence says {wanted[:12]}")
        hashes[name], copied, total = digest, copied + 1, total + size
        progress.advance(size)
    write_whole(out / IMAGES, "".join(f"{image}\n" for image in images).encode())
    hashes[IMAGES] = hash_file(out / IMAGES)
    written = BundleList(
        bundle_version=VERSION,
        checkpoint=target.resolve().name,
        gated=decision is not None,
        images=images,
        files=dict(sorted(hashes.items())),
    )
    written.write(out / LIST)
    return Bundled(out, len(hashes), copied, total, images)


def _is_there(there: Path, source: Path, wanted: str | None) -> bool:
    """Whether an earlier run put a file down, whole."""
    same_size = wanted is not None and there.is_file() and there.stat().st_size == source.stat().st_size
    return same_size and hash_file(there) == wanted


def unbundle(
    source: str,
    out: str | Path | None,
    *,
    hashes: str | Path | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> Bundled:
    """Put down a bundle, or the files of `hashes` (JSON: path -> SHA-256), from a folder or https:// address.

    Whatever is put down is checked while it is copied, and replaced whole. verify: what is there already is read again
    too; without `out`, the source is checked and nothing written. Raises BundleError naming the first file at fault.
    """
    progress = progress or Silent()
    if out is None and not verify:
        raise UsageError(said("wanted DST, or {verify} to check the bundle alone"))
    place = _Http(source) if re.match(r"https?://", source) else _Folder(Path(source))
    wanted, images = _wanted(place, hashes)
    _check_names(wanted)
    if out is None:
        place.check(wanted, progress)
        return Bundled(Path(source), len(wanted), 0, 0, images)
    out = Path(out)
    if isinstance(place, _Folder):
        check_apart(place.folder, out)
    progress.start("unbundle", len(wanted))
    copied = total = 0
    for name, digest in wanted.items():
        there = out / name
        if not (there.is_file() and hash_file(there) == digest):
            size, found = place.copy(name, there)
            if found != digest:
                there.unlink(missing_ok=True)
                raise BundleError(
                    f"{source}: {name} has SHA-256 {found[:12]}, wanted {digest[:12]}", hint="fetch it again"
                )
            copied, total = copied + 1, total + size
        progress.advance(1)
    return Bundled(out, len(wanted), copied, total, images)


def _wanted(place: "_Folder | _Http", hashes: str | Path | None) -> tuple[dict[str, str], list[str]]:
    if hashes is None:
        listed = BundleList.of(_parsed(place.small(LIST), f"{place.where}/{LIST}"), f"{place.where}/{LIST}")
        return dict(listed.files), list(listed.images)
    found = _parsed(read_regular(Path(hashes), LIST_LIMIT_BYTES, BundleError), str(hashes))
    sound = isinstance(found, dict) and all(
        isinstance(one, str) and re.fullmatch(r"[0-9a-f]{64}", one) for one in found.values()
    )
    if not sound or not found:
        raise BundleError(f"{hashes}: wanted a JSON object of path -> SHA-256")
    return found, []


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: cannot be read as JSON: {str(error)[:200]}") from None


def _check_names(wanted: Mapping[str, str]) -> None:
    """No path leads out of the folder. Raises BundleError."""
    for name in wanted:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or not name.isprintable():
            raise BundleError(f"the list names {name[:100]!r}, which is no path within a folder")


def _claim(out: Path) -> None:
    """Raises OutputError for a folder that holds other things."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is there and is no folder")
    ours = {LIST, CHECKPOINT, MANIFESTS, IMAGES}
    if out.is_dir() and any(path.name not in ours for path in out.iterdir()):
        raise OutputError(f"{out}: holds other files", hint="give a folder of its own")
    out.mkdir(parents=True, exist_ok=True)
    (out / LIST).unlink(missing_ok=True)


def _images(folder: Path) -> Iterator[str]:
    for one in read_manifests(folder):
        for _, template, _ in templates(one):
            for container in containers(template):
                yield str(container.get("image"))
            for volume in (template.get("spec") or {}).get("volumes") or []:
                if (volume.get("image") or {}).get("reference"):
                    yield str(volume["image"]["reference"])


class _Folder:
    """A bundle on a disk."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such folder")
        self.folder, self.where = folder, str(folder)

    def small(self, name: str) -> bytes:
        return read_regular(self.folder / name, LIST_LIMIT_BYTES, BundleError)

    def copy(self, name: str, target: Path) -> tuple[int, str]:
        if not (self.folder / name).is_file():
            raise BundleError(f"{self.where}: {name} is missing")
        return copy_file(self.folder / name, target, BundleError)

    def check(self, wanted: Mapping[str, str], progress: Progress) -> None:
        progress.start("verify", len(wanted))
        for name, digest in wanted.items():
            if not (self.folder / name).is_file():
                raise BundleError(f"{self.where}: {name} is missing")
            found = hash_file(self.folder / name)
            if found != digest:
                raise BundleError(f"{self.where}: {name} has SHA-256 {found[:12]}, wanted {digest[:12]}")
            progress.advance(1)


class _Http:
    """Files below an address."""

    def __init__(self, url: str) -> None:
        self.where = url.rstrip("/")
        self._client = httpx.Client(follow_redirects=True, timeout=SILENCE_S)

    def small(self, name: str) -> bytes:
        content = b"".join(self._pieces(name))
        if len(content) > LIST_LIMIT_BYTES:
            raise BundleError(f"{self.where}/{name}: {len(content)} bytes are too many for a list")
        return content

    def copy(self, name: str, target: Path) -> tuple[int, str]:
        digest, size, temporary = hashlib.sha256(), 0, partial(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as written:
                for piece in self._pieces(name):
                    digest.update(piece)
                    size += len(piece)
                    written.write(piece)
                written.flush()
                os.fsync(written.fileno())
            os.replace(temporary, target)
        except OSError as error:
            raise output_error(target, error) from None
        return size, digest.hexdigest()

    def check(self, wanted: Mapping[str, str], progress: Progress) -> None:
        raise UsageError(said("{verify} without DST reads a folder; give DST to fetch and check"))

    def _pieces(self, name: str) -> Iterator[bytes]:
        try:
            with self._client.stream("GET", f"{self.where}/{name}") as answer:
                if answer.status_code != httpx.codes.OK:
                    raise BundleError(f"{self.where}/{name}: the server says {answer.status_code}")
                yield from answer.iter_bytes(PIECE_BYTES)
        except httpx.HTTPError as error:
            raise BundleError(f"{self.where}/{name}: {type(error).__name__}: {str(error)[:200]}") from None
