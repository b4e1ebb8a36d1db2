"""A checkpoint behind HTTP: range requests for the first bytes of every shard, small files whole, never a weight.

A target is a hub name (`owner/name`, read from `HF_ENDPOINT` or https://huggingface.co with `HF_TOKEN` if set) or the
https:// base URL of a folder. What the server says is held against itself: a range that is ignored, a length that
differs from what was sent, or a header that does not fit its file is an error that names the shard.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from halfbyte.checkpoint.files import FileInfo
from halfbyte.checkpoint.header import header_length
from halfbyte.checkpoint.hub import Token, hub_address
from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.checkpoint.names import REMOTE_SECONDS, hub_parts, is_url
from halfbyte.checkpoint.patience import Pace, Patience
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.checkpoint.transport import Transport, direct_body
from halfbyte.errors import CheckpointError, UsageError, said

CONNECTIONS = 16
ATTEMPTS = 4
TIMEOUT_SECONDS = 30.0
FIRST_BYTES = 1 << 18
"""Asked for first: covers most headers whole, so that most shards cost one request."""

MOST_ENTRIES = 10_000
"""Of a hub's listing: beyond that a repository is no checkpoint."""

LISTING_BYTES = 64_000_000
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


def base_url(target: str) -> str:
    """The folder's URL with a trailing slash."""
    if is_url(target):
        return target.rstrip("/") + "/"
    name, revision = hub_parts(target) or (target, "main")
    return f"{hub_address()}/{name}/resolve/{quote(revision, safe='')}/"


def _tree(name: str, revision: str) -> str:
    return f"{hub_address()}/api/models/{name}/tree/{quote(revision, safe='')}?recursive=true"


class Answer(NamedTuple):
    """size: bytes of the body, which is empty here where it was to be written into a buffer."""

    status: int
    headers: httpx.Headers
    body: bytes
    size: int


class RemoteFiles:
    """Files (see `files.Files`) under one URL. Retries what may pass (429, 5xx, broken connections), then says so."""

    remote = True
    connections = CONNECTIONS

    def __init__(
        self, target: str, wait: Callable[[float], None] = time.sleep, seconds: float = REMOTE_SECONDS
    ) -> None:
        """seconds: for all that is asked of it."""
        self.where, self._wait = base_url(target), wait
        self._hub = hub_parts(target)
        self._list_url = None if self._hub is None else _tree(*self._hub)
        self._listing: dict[str, FileInfo] | None = None
        self._listed = False
        self._etags: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self.headers_read: dict[str, tuple[bytes, int]] = {}
        self.commit: str | None = None
        self._token = Token()
        self._client = httpx.Client(
            follow_redirects=True,
            timeout=TIMEOUT_SECONDS,
            headers=self._token.headers(self.where),
            transport=Transport(CONNECTIONS),
            event_hooks={"request": [self._token.check]},
        )
        self._patience = Patience(self.where[:200], seconds, self._client.close)

    def place(self, name: str) -> str:
        return self.where + name

    def pin(self) -> None:
        """Read the commit that a hub's revision is now, instead of a name that may move. Left alone where no interface
        says: then ETags alone tell."""
        if self._hub is None:
            return
        name, revision = self._hub
        url = f"{hub_address()}/api/models/{name}/revision/{quote(revision, safe='')}"
        answer = self._fetch(url, {}, LISTING_BYTES)
        try:
            found = json.loads(answer.body).get("sha") if answer.status == 200 else None
        except (ValueError, RecursionError, AttributeError):
            found = None
        if isinstance(found, str) and _COMMIT.fullmatch(found):
            self.commit, self.where = found, base_url(f"{name}@{found}")
            self._list_url = _tree(name, found)

    def pinned(self, name: str) -> str | None:
        """The tag by which a file that was asked for is told from another one of its name."""
        return self._tags.get(name)

    def block_into(self, name: str, start: int, view: memoryview, size: int) -> None:
        """Fill `view` from byte `start` of a file of `size` bytes whose header was read.

        Raises CheckpointError if the server fails, or has another file by now.
        """
        before = self._tags.get(name)
        found = self._range(name, start, len(view), view)
        if found is None or found[1] != size or self._tags.get(name) != before:
            raise CheckpointError(
                f"{self.place(name)}: is another file by now", hint="start again, with a revision that does not move"
            )

    def close(self) -> None:
        self._patience.close()
        self._client.close()

    def text(self, name: str) -> bytes | None:
        if self._listing is not None and name not in self._listing:
            return None
        answer = self._get(name, None, JSON_LIMIT_BYTES)
        if answer.status in (404, 410):
            return None
        if answer.status != 200:
            raise CheckpointError(f"{self.place(name)}: status {answer.status}", hint="check the name")
        return answer.body

    def listing(self) -> dict[str, FileInfo] | None:
        """What the hub's interface says, asked once; None for other servers, and where no interface answers."""
        if not self._listed:
            self._listed, self._listing = True, self._hub_listing()
        return self._listing

    def _hub_listing(self) -> dict[str, FileInfo] | None:
        """GET /api/models/OWNER/NAME/tree/main?recursive=true, pages linked by `Link: <...>; rel="next"`.

        Raises CheckpointError for one that does not end, or goes in a circle.
        """
        found: dict[str, FileInfo] = {}
        entries: set[str] = set()
        url = self._list_url
        while url is not None:
            rows, following = self._page(url)
            if rows is None:
                return None
            before = len(entries)
            for row in rows:
                if isinstance(row, dict) and isinstance(name := row.get("path"), str):
                    entries.add(name)
                    if row.get("type") == "file":
                        lfs, size = row.get("lfs"), row.get("size")
                        digest = _digest(lfs.get("oid")) if isinstance(lfs, dict) else None
                        found[name] = FileInfo(name, size if type(size) is int else None, digest)
            if len(entries) > MOST_ENTRIES:
                raise CheckpointError(f"{self.where}: lists more than {MOST_ENTRIES} files, which no checkpoint has")
            ours = (self._list_url or "").partition("?")[0]
            url = following if following is not None and following.startswith(f"{ours}?") else None
            if url is not None and len(entries) == before:
                raise CheckpointError(f"{self.where}: its listing repeats a page and has no end")
        return found if self._list_url is not None else None

    def _page(self, url: str) -> tuple[list[Any] | None, str | None]:
        """Rows of a page of the listing, None where no interface answers; the address of the next page."""
        answer = self._fetch(url, {}, LISTING_BYTES)
        try:
            rows = json.loads(answer.body) if answer.status == 200 else None
        except (ValueError, RecursionError):
            return None, None
        following = httpx.Response(200, headers=answer.headers).links.get("next", {}).get("url")
        return (rows if isinstance(rows, list) else None), following

    def stated_sha256(self, name: str) -> str | None:
        listed = self._listing.get(name) if self._listing is not None else None
        return listed.sha256 if listed is not None and listed.sha256 else self._etags.get(name)

    def read_into(self, tensor: Tensor, buffer: memoryview, offset: int) -> None:
        raise UsageError(
            f"{self.where}: weights are not read over the network", hint=said("download it, or use {depth} headers")
        )

    def forget(self, name: str) -> None:
        pass

    def header(self, name: str) -> tuple[bytes, int] | None:
        """By one or two range requests."""
        where = self.place(name)
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
        self.headers_read[name] = text, file_bytes
        return text, file_bytes

    def _range(self, name: str, start: int, length: int, into: memoryview | None = None) -> tuple[bytes, int] | None:
        """Bytes [start, start + length), fewer only at the file's end, and the file's size; None for a missing file.

        into: where the bytes go, instead of being returned."""
        answer = self._get(name, (start, start + length - 1), length, into)
        where = self.place(name)
        if answer.status in (404, 410):
            return None
        if answer.status == 200:
            raise CheckpointError(
                f"{where}: the server ignores range requests",
                hint="download the checkpoint, or use a server that has them",
            )
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        if answer.status != 206 or found is None:
            raise CheckpointError(f"{where}: asked for a range, got status {answer.status} without its bounds")
        first, last, size = (int(number) for number in found.groups())
        wanted = min(start + length, size) - 1
        if first != start or last != wanted or answer.size != last - first + 1:
            raise CheckpointError(
                f"{where}: asked for bytes {start} to {wanted}, got {answer.size} bytes, said to be {first} to {last} "
                f"of {size}"
            )
        return answer.body, size

    def _get(self, name: str, span: tuple[int, int] | None, most: int, into: memoryview | None = None) -> Answer:
        """One file or a part of it. Raises CheckpointError if access is refused."""
        headers = {"range": f"bytes={span[0]}-{span[1]}", "accept-encoding": "identity"} if span else {}
        answer = self._fetch(self.place(name), headers, most, name, into)
        if answer.status in (401, 403):
            raise CheckpointError(
                f"{self.place(name)}: no access (status {answer.status})", hint="set HF_TOKEN for a gated one"
            )
        return answer

    def _fetch(
        self,
        url: str,
        headers: dict[str, str],
        most: int,
        name: str | None = None,
        into: memoryview | None = None,
    ) -> Answer:
        """One request, at most `most` bytes of answer, tried again with growing pauses, or as the server asks.

        name: of the file whose digest the answer may state. into: where a range goes.
        """
        problem, asked = "", None
        for attempt in range(ATTEMPTS):
            if attempt:
                self._patience.pause(asked, 0.25 * 4 ** (attempt - 1), self._wait)
            asked = None
            try:
                with (
                    self._patience.request(),
                    self._client.stream("GET", url, headers=headers) as answer,
                ):
                    if answer.status_code == 429 or answer.status_code >= 500:
                        problem, asked = f"status {answer.status_code}", answer.headers.get("retry-after")
                        continue
                    if name is not None:
                        self._note_etag(name, answer)
                    if answer.status_code == 200 and "range" in headers:
                        return Answer(200, answer.headers, b"", 0)  # the whole file would follow: leave at once
                    if into is not None and answer.status_code == 206:
                        count = _filled(answer, into, url, self._patience.pace())
                        return Answer(206, answer.headers, b"", count)
                    body = _bounded(answer, most, url, self._patience.pace())
                    return Answer(answer.status_code, answer.headers, body, len(body))
            except httpx.InvalidURL:
                raise CheckpointError(f"{self.where[:200]}: not a URL") from None
            except CheckpointError:
                raise
            except Exception as error:  # httpx's own, and whatever its parts raise where connections were closed
                self._patience.check()
                problem = f"{type(error).__name__} {str(error)[:200]}".strip()
        raise CheckpointError(
            f"{url}: cannot be read after {ATTEMPTS} attempts: {problem}", hint="check the network and the name"
        )

    def _note_etag(self, name: str, answer: httpx.Response) -> None:
        """A hub sends a large file's SHA-256 with the redirect to its storage, other servers perhaps as the ETag."""
        if answer.status_code in (200, 206):
            steps = (*answer.history, answer)
            linked = next((tag for step in steps if (tag := step.headers.get("x-linked-etag"))), None)
            self._tags[name] = linked or answer.headers.get("etag") or answer.headers.get("last-modified") or ""
        for step in (*answer.history, answer):
            found = _digest(step.headers.get("x-linked-etag") or step.headers.get("etag"))
            if found is not None:
                self._etags[name] = found


def _digest(tag: object) -> str | None:
    """A SHA-256 out of an ETag or an LFS id, None for any other tag."""
    plain = tag.removeprefix("W/").strip('"').lower() if isinstance(tag, str) else ""
    return plain if re.fullmatch(r"[0-9a-f]{64}", plain) else None


def _bounded(answer: httpx.Response, most: int, where: str, pace: Pace) -> bytes:
    return b"".join(_pieces(answer, most, where, pace))


def _pieces(answer: httpx.Response, most: int, where: str, pace: Pace) -> Iterator[bytes]:
    size = 0
    for piece in answer.iter_bytes():
        pace.sent(len(piece))
        size += len(piece)
        if size > most:
            raise CheckpointError(f"{where}: sends more than the {most} bytes asked for")
        yield piece


def _filled(answer: httpx.Response, view: memoryview, where: str, pace: Pace) -> int:
    """Bytes of the body, all of them in `view`: from the connection without a copy between, if that can be."""
    filled, body = 0, direct_body(answer)
    if body is None:
        for piece in _pieces(answer, len(view), where, pace):
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled
    if body.left > len(view):
        raise CheckpointError(f"{where}: sends more than the {len(view)} bytes asked for")
    while body.left:
        count = body.read_into(view[filled:])
        pace.sent(count)
        filled += count
    return filled
