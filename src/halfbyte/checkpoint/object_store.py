"""A checkpoint in an object store (`s3://`, `gs://`, `az://`), through obstore: Rust's object_store, extra `[cloud]`.

Credentials and endpoints are those of the environment, as each store's own tools read them (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME, ...). Retries are the library's. Objects
are pinned by their ETag: one that was replaced in the middle is refused.
"""

from typing import Any

from halfbyte.checkpoint.files import FileInfo
from halfbyte.checkpoint.header import header_length
from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError, UnsupportedError, UsageError, said

FIRST_BYTES = 1 << 18
MOST_OBJECTS = 10_000


def open_store(target: str) -> tuple[Any, Any]:
    """obstore, and what it calls the store of a folder: keys are relative to it.

    Raises UnsupportedError without obstore, CheckpointError for an address that is none.
    """
    try:
        import obstore
        from obstore.store import from_url
    except ImportError:
        raise UnsupportedError(
            f"{target[:200]}: object stores need obstore", hint="pip install 'halfbyte[cloud]'"
        ) from None
    try:
        return obstore, from_url(target.rstrip("/"), client_options={"allow_http": True})
    except Exception as error:
        raise CheckpointError(f"{target[:200]}: {told(error)}", hint="wanted s3://BUCKET/FOLDER") from None


class StoreFiles:
    """Files (see `files.Files`) under one prefix of a bucket, and their blocks (see `blocks`)."""

    remote = True
    connections = 16

    def __init__(self, target: str) -> None:
        """Raises UnsupportedError without obstore, CheckpointError for an address that is none."""
        self._obstore, self._store = open_store(target)
        self.where = target.rstrip("/") + "/"
        self._metas: dict[str, Any] = {}
        self._listing: dict[str, FileInfo] | None = None
        self.headers_read: dict[str, tuple[bytes, int]] = {}
        self.commit: str | None = None

    def place(self, name: str) -> str:
        return self.where + name

    def pin(self) -> None:
        """Objects have no common revision; each is pinned by its ETag."""

    def pinned(self, name: str) -> str | None:
        meta = self._metas.get(name)
        return None if meta is None else str(meta.get("e_tag") or meta.get("last_modified"))

    def listing(self) -> dict[str, FileInfo]:
        if self._listing is None:
            found: dict[str, FileInfo] = {}
            try:
                for chunk in self._obstore.list(self._store):
                    for meta in chunk:
                        found[meta["path"]] = FileInfo(meta["path"], meta["size"])
                    if len(found) > MOST_OBJECTS:
                        raise CheckpointError(f"{self.where}: holds more than {MOST_OBJECTS} objects")
            except CheckpointError:
                raise
            except Exception as error:
                raise CheckpointError(f"{self.where}: cannot be listed: {told(error)}") from None
            self._listing = found
        return self._listing

    def text(self, name: str) -> bytes | None:
        meta = self._head(name)
        if meta is None:
            return None
        if meta["size"] > JSON_LIMIT_BYTES:
            raise CheckpointError(f"{self.place(name)}: {meta['size']} bytes are too many")
        return self._bytes(name, 0, meta["size"])

    def header(self, name: str) -> tuple[bytes, int] | None:
        """By one or two range requests."""
        meta = self._head(name)
        if meta is None:
            return None
        size = int(meta["size"])
        first = self._bytes(name, 0, min(FIRST_BYTES, size))
        length = header_length(first, size, self.place(name))
        text = first[8 : 8 + length]
        if len(text) < length:
            text += self._bytes(name, 8 + len(text), length - len(text))
        self.headers_read[name] = text, size
        return text, size

    def block_into(self, name: str, start: int, view: memoryview, size: int) -> None:
        """See `RemoteFiles.block_into`."""
        view[:] = self._content(name, start, len(view))

    def stated_sha256(self, name: str) -> str | None:
        return None

    def read_into(self, tensor: Tensor, buffer: memoryview, offset: int) -> None:
        raise UsageError(f"{self.where}: weights are not read over the network", hint=said("use {depth} headers"))

    def forget(self, name: str) -> None:
        self.headers_read.pop(name, None)

    def close(self) -> None:
        pass

    def _head(self, name: str) -> Any:
        if name not in self._metas:
            try:
                self._metas[name] = self._obstore.head(self._store, name)
            except FileNotFoundError:
                return None
            except Exception as error:
                raise CheckpointError(
                    f"{self.place(name)}: cannot be read: {told(error)}", hint="check the address and the credentials"
                ) from None
        return self._metas[name]

    def _bytes(self, name: str, start: int, length: int) -> bytes:
        return bytes(self._content(name, start, length)) if length else b""

    def _content(self, name: str, start: int, length: int) -> memoryview:
        options: Any = {"range": (start, start + length)}
        tag = (self._metas.get(name) or {}).get("e_tag")
        if tag:
            options["if_match"] = tag
        try:
            found = memoryview(self._obstore.get(self._store, name, options=options).bytes())
        except FileNotFoundError:
            raise CheckpointError(f"{self.place(name)}: is gone", hint="start again with a source that stays") from None
        except Exception as error:
            if type(error).__name__ == "PreconditionError":
                raise CheckpointError(
                    f"{self.place(name)}: is another file by now", hint="start again with a source that stays"
                ) from None
            raise CheckpointError(f"{self.place(name)}: cannot be read: {told(error)}") from None
        if len(found) != length:
            raise CheckpointError(f"{self.place(name)}: asked for {length} bytes from {start}, got {len(found)}")
        return found


def told(error: BaseException) -> str:
    """What went wrong, in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no reason given'}"
