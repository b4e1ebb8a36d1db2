"""Bodies by the megabyte: urllib3's connections under httpx, whose own hand over 64 kB at a time through three copies.

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
    """As it comes from the connection, a megabyte at most at a time."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._answer.read1(PIECE_BYTES, decode_content=False):
            yield piece

    def close(self) -> None:
        if self._answer.length_remaining == 0:
            self._answer.release_conn()  # read to its end: fit for the next request
        else:
            self._answer.close()


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
        return httpx.Response(answer.status, headers=headers, stream=Body(answer), request=request)

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
