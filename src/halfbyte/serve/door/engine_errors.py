"""Errors of our own engine in OpenAI's shape."""

import re

from halfbyte.serve.door.meter import payload
from halfbyte.serve.door.refusal import Refusal

EMBEDDED_PARSER = re.compile(r"\[json\.exception")
REFUSED_BY_ENGINE = re.compile(
    r"^(Failed to|Unable to|Invalid|Unsupported|Expected)|schema|grammar|template", re.IGNORECASE
)
"""What our own engine calls its own error though the request is at fault."""


def engine_error(status: int, body: bytes) -> Refusal:
    """Our own engine's error in OpenAI's shape, without what its parser says of itself."""
    document = payload(b"data: " + body.replace(b"\n", b" "))
    error = document.get("error") if document else None
    found = error if isinstance(error, dict) else {}
    message = str(found.get("message") or "the engine could not answer")
    if EMBEDDED_PARSER.search(message):
        status, message = 400, "the request has a field of the wrong type"
    elif status == 500 and REFUSED_BY_ENGINE.search(message):
        status = 400
    own = "server_error" if status >= 500 else "invalid_request_error"
    kind = own if found.get("type") in (None, "server_error") else str(found["type"])
    code = {"exceed_context_size_error": "context_length_exceeded"}.get(kind, kind)
    return Refusal(404 if status == 501 else status, code, message[:500], type=own, reason="upstream")
