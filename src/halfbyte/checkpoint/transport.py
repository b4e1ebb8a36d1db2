"""Bodies without copies: urllib3's connections under httpx, whose own hand over 64 kB at a time through three copies.

Rules stay httpx's (redirects, and what a request may carry where); here are connections alone, with the environment's
proxies and certificates. Closing ends what is being read at once, from any thread.
"""

import http.client
import socket
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

PIECE_BYTES = 1 << 20


class Body(httpx.SyncByteStream):
    """As it comes from the connection: a megabyte at most at a time, or straight into a buffer."""

    def __init__(self, answer: urllib3.BaseHTTPResponse, raw: "Headers | None") -> None:
        self._answer, self._raw = answer, raw

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._answer.read1(PIECE_BYTES, decode_content=False):
            yield piece

    @property
    def direct(self) -> bool:
        """Whether it has a length and comes as it is: one that comes in chunks or packed goes by way of `__iter__`."""
        packed = self._answer.headers.get("content-encoding", "identity").lower() != "identity"
        return self._raw is not None and self._raw.length is not None and not packed

    @property
    def left(self) -> int:
        return (self._raw.length if self._raw is not None else None) or 0

    def read_into(self, view: memoryview) -> int:
        """What is there, at most all that is left. Raises what a cut connection raises."""
        assert self._raw is not None
        return self._raw.read_some(view)

    def close(self) -> None:
        if self._answer.length_remaining == 0 or (self.direct and not self.left):
            self._answer.release_conn()  # read to its end: fit for the next request
        else:
            self._answer.close()


def direct_body(answer: httpx.Response) -> Body | None:
    """The body of an answer, if it can be read straight into a buffer."""
    return answer.extensions.get("direct")


class Headers(http.client.HTTPResponse):
    """An answer whose headers end where they say: the standard library takes a cut connection for their end."""

    def begin(self) -> None:
        lines = _Lines(self.fp)
        self.fp: Any = lines
        super().begin()
        if self.fp is lines:
            self.fp = lines.file
        if lines.last not in (b"\r\n", b"\n"):
            raise http.client.RemoteDisconnected("the connection ended within the headers")
        if self.length == 0:
            self._close_conn()  # type: ignore[attr-defined]  # else it must be read before the connection's next answer

    def read_some(self, view: memoryview) -> int:
        """One read of a body whose length is known: `readinto` of the standard library waits until `view` is full."""
        assert self.length is not None
        count = int(self.fp.readinto1(view[: self.length])) if self.fp is not None else 0
        if not count:
            raise http.client.IncompleteRead(b"", self.length)
        self.length -= count
        if not self.length:
            self._close_conn()  # type: ignore[attr-defined]  # at its end, as the standard library's own reads do
        return count


class _Lines:
    """A file that is read by lines. last: the last one."""

    def __init__(self, file: Any) -> None:
        self.file, self.last = file, b""

    def readline(self, *limit: int) -> bytes:
        self.last = self.file.readline(*limit)
        return self.last

    def close(self) -> None:
        self.file.close()


class Transport(httpx.BaseTransport):
    """connections: kept for each server."""

    def __init__(self, connections: int) -> None:
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._options: dict[str, Any] = {"maxsize": connections, "ssl_context": httpx.create_ssl_context()}
        self._managers: dict[str | None, urllib3.PoolManager] = {}
        self._proxies = getproxies()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        times = request.extensions.get("timeout", {})
        url = request.url
        answer = self._manager(url).urlopen(
            request.method,
            str(url.copy_with(fragment=None)),
            body=request.read() or None,
            headers=dict(request.headers),
            timeout=urllib3.Timeout(connect=times.get("connect"), read=times.get("read")),
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.iteritems()]
        raw = getattr(answer, "_original_response", None)
        body = Body(answer, raw if isinstance(raw, Headers) else None)
        extensions = {"direct": body} if body.direct else {}
        return httpx.Response(answer.status, headers=headers, stream=body, extensions=extensions, request=request)

    def close(self) -> None:
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for manager in list(self._managers.values()):
            manager.clear()

    def _manager(self, url: httpx.URL) -> urllib3.PoolManager:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        proxy = None if proxy is None or proxy_bypass(url.host) else proxy
        if proxy not in self._managers:
            made: Any = (
                urllib3.PoolManager(**self._options)
                if proxy is None
                else urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}", **self._options)
            )
            made.pool_classes_by_scheme = self._pools()
            self._managers[proxy] = made
        return self._managers[proxy]

    def _pools(self) -> dict[str, type[HTTPConnectionPool]]:
        """Pools whose sockets are known, to be shut down while somebody waits for them."""
        sockets = self._sockets

        class Plain(HTTPConnection):
            response_class = Headers

            def connect(self) -> None:
                super().connect()
                sockets.add(self.sock)

        class Secure(HTTPSConnection):
            response_class = Headers

            def connect(self) -> None:
                super().connect()
                sockets.add(self.sock)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        return {"http": PlainPool, "https": SecurePool}
