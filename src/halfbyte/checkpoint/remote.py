"""A remote checkpoint opened by its headers: HTTP range requests for the first bytes of every shard, no weights.

A target is a hub name (`owner/name`, read from `HF_ENDPOINT` or https://huggingface.co with `HF_TOKEN` if set) or the
https:// base URL of a folder. What the server says is held against itself: a range that is ignored, a length that
differs from what was sent, or a header that does not fit its file is an error that names the shard.
"""

import json
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from halfbyte.checkpoint.header import Header, header_length, parse_header
from halfbyte.checkpoint.source import INDEX_NAME, JSON_LIMIT_BYTES, SINGLE_NAME, Tensor
from halfbyte.errors import CheckpointError

HUB = "https://huggingface.co"
CONNECTIONS = 16
ATTEMPTS = 4
TIMEOUT_SECONDS = 30.0
FIRST_BYTES = 1 << 18
"""Asked for first: covers most headers whole, so that most shards cost one request."""

LISTING_LIMIT = 100_000
"""Files beyond which a repository is no checkpoint."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def base_url(target: str) -> str:
    """The folder's URL with a trailing slash."""
    if target.startswith(("http://", "https://")):
        return target.rstrip("/") + "/"
    return f"{os.environ.get('HF_ENDPOINT', HUB).rstrip('/')}/{target}/resolve/main/"


class RemoteFiles:
    """Reads parts of files under one URL. Retries what may pass (429, 5xx, broken connections), then says so."""

    def __init__(self, target: str, wait: Callable[[float], None] = time.sleep) -> None:
        self.base, self._wait = base_url(target), wait
        token = os.environ.get("HF_TOKEN")
        own = self.base.startswith(os.environ.get("HF_ENDPOINT", HUB))
        headers = {"authorization": f"Bearer {token}"} if token and own else {}
        self.etags: dict[str, str] = {}
        hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
        self._target_api = f"{hub}/api/models/{target}/tree/main?recursive=true"
        bounds = httpx.Limits(max_connections=CONNECTIONS)
        self._client = httpx.Client(follow_redirects=True, timeout=TIMEOUT_SECONDS, limits=bounds, headers=headers)

    def close(self) -> None:
        self._client.close()

    def json(self, name: str, missing_ok: bool = False) -> dict[str, Any] | None:
        """A whole JSON file. Raises CheckpointError; None for a missing file if `missing_ok`."""
        status, _, body = self._get(name, None, JSON_LIMIT_BYTES)
        if status == 404:
            if missing_ok:
                return None
            raise CheckpointError(f"{self.base}{name}: missing", hint="check the name; a checkpoint has a config.json")
        try:
            document = json.loads(body.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.base}{name}: not valid JSON: {str(error)[:200]}") from None
        if not isinstance(document, dict):
            raise CheckpointError(f"{self.base}{name}: not a JSON object")
        return document

    def text(self, name: str, most: int) -> bytes | None:
        """A whole small file, None if it is missing. Raises CheckpointError (network, more than `most` bytes)."""
        status, _, body = self._get(name, None, most)
        if status in (404, 410):
            return None
        if status != 200:
            raise CheckpointError(f"{self.base}{name}: status {status}", hint="check the name")
        return body

    def hub_listing(self) -> list[tuple[str, int | None, str | None]] | None:
        """(path, bytes, SHA-256 where stored by it) of every file, or None where no hub interface answers.

        GET /api/models/OWNER/NAME/tree/main?recursive=true, pages linked by `Link: <...>; rel="next"`.
        """
        base = self._target_api
        found: list[tuple[str, int | None, str | None]] = []
        url: str | None = base
        while url is not None:
            try:
                answer = self._client.get(url)
                rows = answer.json() if answer.status_code == 200 else None
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError):
                return None
            if not isinstance(rows, list) or len(found) > LISTING_LIMIT:
                return None
            for row in rows:
                if isinstance(row, dict) and row.get("type") == "file" and isinstance(row.get("path"), str):
                    lfs = row.get("lfs")
                    digest = lfs.get("oid") if isinstance(lfs, dict) else None
                    size = row.get("size")
                    found.append((row["path"], size if type(size) is int else None, _digest(digest)))
            following = answer.links.get("next", {}).get("url")
            url = following if following is not None and following.startswith(base.partition("?")[0]) else None
        return found

    def header(self, name: str) -> Header:
        """The safetensors header of one shard, by one or two range requests."""
        found = self.header_text(name)
        if found is None:
            raise CheckpointError(f"{self.base}{name}: missing", hint="the index names it; complete the upload")
        return parse_header(*found, self.base + name)

    def header_text(self, name: str) -> tuple[bytes, int] | None:
        """The bytes of one shard's header and the shard's size, None if it is missing."""
        where = self.base + name
        found = self._range(name, 0, FIRST_BYTES)
        if found is None:
            return None
        first, file_bytes = found
        length = header_length(first, file_bytes, where)
        text = first[8 : 8 + length]
        if len(text) < length:
            rest, size = self._range(name, 8 + len(text), length - len(text)) or (b"", 0)
            if size != file_bytes:
                raise CheckpointError(
                    f"{where}: was {file_bytes} bytes long, is now {size}", hint="it changed; try again"
                )
            text += rest
        if len(text) != length:
            raise CheckpointError(f"{where}: sent {len(text)} of a header of {length} bytes")
        return text, file_bytes

    def _range(self, name: str, start: int, length: int) -> tuple[bytes, int] | None:
        """Bytes [start, start + length), fewer only at the file's end, and the file's size; None for a missing file."""
        status, headers, body = self._get(name, (start, start + length - 1), length)
        where = self.base + name
        if status in (404, 410):
            return None
        if status == 200:
            raise CheckpointError(
                f"{where}: the server ignores range requests",
                hint="download the checkpoint, or use a server that has them",
            )
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if status != 206 or found is None:
            raise CheckpointError(f"{where}: asked for a range, got status {status} without its bounds")
        first, last, size = (int(number) for number in found.groups())
        wanted = min(start + length, size) - 1
        if first != start or last != wanted or len(body) != last - first + 1:
            raise CheckpointError(
                f"{where}: asked for bytes {start} to {wanted}, got {len(body)} bytes, said to be {first} to {last} of "
                f"{size}"
            )
        return body, size

    def _get(self, name: str, span: tuple[int, int] | None, most: int) -> tuple[int, httpx.Headers, bytes]:
        """One request, at most `most` bytes of answer, tried again with growing pauses."""
        headers = {"range": f"bytes={span[0]}-{span[1]}", "accept-encoding": "identity"} if span else {}
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._wait(0.25 * 4 ** (attempt - 1))
            try:
                with self._client.stream("GET", self.base + name, headers=headers) as answer:
                    if answer.status_code == 429 or answer.status_code >= 500:
                        problem = f"status {answer.status_code}"
                        continue
                    if answer.status_code in (401, 403):
                        raise CheckpointError(
                            f"{self.base}{name}: no access (status {answer.status_code})",
                            hint="set HF_TOKEN for a gated one",
                        )
                    self._note_etag(name, answer)
                    if span and answer.status_code == 200:
                        return 200, answer.headers, b""  # the whole file would follow: leave at once
                    return answer.status_code, answer.headers, _bounded(answer, most, self.base + name)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__} {error}".strip()
            except httpx.InvalidURL:
                raise CheckpointError(f"{self.base[:200]}: not a URL") from None
        raise CheckpointError(
            f"{self.base}{name}: cannot be read after {ATTEMPTS} attempts: {problem}",
            hint="check the network and the name",
        )

    def _note_etag(self, name: str, answer: httpx.Response) -> None:
        """A hub sends a large file's SHA-256 with the redirect to its storage, other servers perhaps as the ETag."""
        for step in (*answer.history, answer):
            found = _digest(step.headers.get("x-linked-etag") or step.headers.get("etag"))
            if found is not None:
                self.etags[name] = found


def _digest(tag: object) -> str | None:
    """A SHA-256 out of an ETag or an LFS id, None for any other tag."""
    plain = tag.removeprefix("W/").strip('"').lower() if isinstance(tag, str) else ""
    return plain if re.fullmatch(r"[0-9a-f]{64}", plain) else None


def _bounded(answer: httpx.Response, most: int, where: str) -> bytes:
    body = bytearray()
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > most:
            raise CheckpointError(f"{where}: sends more than the {most} bytes asked for")
    return bytes(body)


def read_remote_config(target: str) -> dict[str, Any]:
    """config.json alone."""
    files = RemoteFiles(target)
    try:
        return files.json("config.json") or {}
    finally:
        files.close()


@dataclass(frozen=True)
class RemoteCheckpoint:
    """Config, quantization metadata and all tensors (name, shard, dtype, shape, byte range) of a remote checkpoint.

    requests are bounded: CONNECTIONS at once, one or two for each shard.
    """

    target: str
    config: dict[str, Any]
    hf_quant_config: dict[str, Any] | None
    tensors: dict[str, Tensor]
    shards: tuple[str, ...] = ()
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def open(cls, target: str, wait: Callable[[float], None] = time.sleep) -> "RemoteCheckpoint":
        """Read config, index and every header. Raises CheckpointError naming the file."""
        files = RemoteFiles(target, wait)
        try:
            config = files.json("config.json") or {}
            index = files.json(INDEX_NAME, missing_ok=True)
            shards = _shards(index, files.base)
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                headers = dict(zip(shards, pool.map(files.header, shards), strict=True))
            quant = files.json("hf_quant_config.json", missing_ok=True)
        finally:
            files.close()
        tensors = _merged(headers, index, files.base)
        metadata = {name: header.metadata for name, header in headers.items()}
        return cls(target, config, quant, tensors, tuple(shards), metadata)


def _shards(index: dict[str, Any] | None, base: str) -> list[str]:
    if index is None:
        return [SINGLE_NAME]
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{base}{INDEX_NAME}: has no weight_map")
    for shard in weight_map.values():
        if not isinstance(shard, str) or not re.fullmatch(r"[\w.-]+\.safetensors", shard):
            raise CheckpointError(f"{base}{INDEX_NAME}: names the shard {str(shard)[:200]!r}")
    return sorted(set(weight_map.values()))


def _merged(headers: dict[str, Header], index: dict[str, Any] | None, base: str) -> dict[str, Tensor]:
    """One name space, held against the index in both directions."""
    tensors: dict[str, Tensor] = {}
    for shard, header in headers.items():
        for name, (dtype, shape, start, stop) in sorted(header.tensors.items(), key=lambda item: item[1].start):
            if name in tensors:
                raise CheckpointError(f"{base}: tensor {name[:200]!r} stands in both {tensors[name].shard} and {shard}")
            tensors[name] = Tensor(name, shard, dtype, shape, start, stop)
    weight_map = index["weight_map"] if index is not None else {}
    for name, shard in weight_map.items():
        if name not in tensors or tensors[name].shard != shard:
            raise CheckpointError(f"{base}{INDEX_NAME}: sends {name[:200]!r} to {shard}, which does not hold it")
    if index is not None and len(weight_map) != len(tensors):
        extra = next(name for name in tensors if name not in weight_map)
        raise CheckpointError(f"{base}{INDEX_NAME}: does not name tensor {extra[:200]!r}")
    return tensors
