"""How the door says no: OpenAI's error shape, which Anthropic's clients read too."""

import json
from collections.abc import Mapping

RETRY_S = 1
"""When it is worth asking again where no limit says better."""


class Refusal(Exception):
    """An answer that is no answer. reason: for metrics, of a fixed set of words; the code by default."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.type, self.param = status, code, type, param
        self.headers = dict(headers or {})
        self.reason = reason or code

    def body(self) -> bytes:
        error = {"message": str(self), "type": self.type, "param": self.param, "code": self.code}
        return json.dumps({"type": "error", "error": error}, ensure_ascii=False).encode("utf-8", "replace")


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> Refusal:
    return Refusal(400, code, message, param=param, reason="bad_request")


def unavailable(code: str, message: str, retry_s: int = RETRY_S) -> Refusal:
    return Refusal(503, code, message, type="server_error", headers={"retry-after": str(retry_s)})


def event_of(message: str, code: str) -> bytes:
    """The event that ends a stream which cannot go on."""
    error = {"message": message, "type": "upstream_error", "param": None, "code": code}
    return b"event: error\ndata: " + json.dumps({"type": "error", "error": error}).encode() + b"\n\n"
