"""The little of ASGI that the door needs itself."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from halfbyte.serve.door.refusal import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MOST_BODY_BYTES = 32 << 20
PASSED_UP = (b"accept", b"anthropic-version", b"anthropic-beta", b"traceparent", b"tracestate")
"""Headers that an upstream is sent; whatever else a client says of itself, it says to us alone."""
PASSED_DOWN = (
    "content-type",
    "content-encoding",
    "cache-control",
    "retry-after",
    "content-language",
    "openai-processing-ms",
)


class ClientGoneError(Exception):
    """The client went away before it had asked."""


def header(scope: Scope, name: bytes) -> str | None:
    """The only value of a header; None where there is none. Raises Refusal for several."""
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        raise Refusal(400, "repeated_header", f"{name.decode()}: given {len(found)} times", reason="bad_request")
    return found[0].decode("latin-1") if found else None


def key_of(scope: Scope) -> str | None:
    """The API key of a request: a bearer's, or Anthropic's header."""
    authorization = header(scope, b"authorization")
    if authorization is not None:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() == "bearer" and key.strip():
            return key.strip()
    return header(scope, b"x-api-key")


def passed_up(scope: Scope, request_id: str) -> dict[str, str]:
    headers = {key.decode(): value.decode("latin-1") for key, value in scope["headers"] if key in PASSED_UP}
    return headers | {"content-type": "application/json", "accept-encoding": "identity", "x-request-id": request_id}


def passed_down(headers: Mapping[str, str]) -> Headers:
    return [(name.encode(), headers[name].encode("latin-1", "replace")) for name in PASSED_DOWN if name in headers]


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Raises Refusal for one that is too large, ClientGoneError."""
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > MOST_BODY_BYTES:
        raise _too_large()
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        piece = message.get("body", b"")
        size += len(piece)
        if size > MOST_BODY_BYTES:
            raise _too_large()
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)


def _too_large() -> Refusal:
    return Refusal(413, "request_too_large", f"the body has more than {MOST_BODY_BYTES} bytes", reason="bad_request")


async def answer(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """A whole answer at once."""
    sized = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": sized})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, refusal: Refusal, headers: Headers) -> None:
    own = [(name.encode(), value.encode("latin-1", "replace")) for name, value in refusal.headers.items()]
    await answer(send, refusal.status, refusal.body(), [(b"content-type", b"application/json"), *own, *headers])
