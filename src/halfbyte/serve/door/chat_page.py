"""llama.cpp's own chat page, through the door: its files as they are, what it asks of a model by the routes that count.

The embedded engine brings the page along. It asks `./v1/chat/completions` and `./props` of the address that it came
from, and takes a key in its settings, so a conversation is charged to that key's tenant like any other.
"""

import gzip

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.convertors import StringConvertor, register_url_convertor

from halfbyte.serve.door.door import Door
from halfbyte.serve.door.refusal import Refusal, unavailable
from halfbyte.serve.door.upstream import BROKEN, Upstream

FILE = r"_app(?:/[\w-][\w.-]*)+|[\w-]+\.(?:css|ico|js|json|png|svg|webmanifest)"
"""Paths of its files. No route of the engine has a dot in its name, so none is reached by them."""
PASSED = ("content-type", "etag", "cache-control", "cross-origin-embedder-policy", "cross-origin-opener-policy")


class _FileConvertor(StringConvertor):
    regex = FILE


register_url_convertor("chat_page_file", _FileConvertor())


def add_chat_page(app: FastAPI, door: Door) -> None:
    """Its routes; for a door whose engine is embedded."""

    @app.get("/props", tags=["operation"])
    async def props(request: Request) -> Response:
        """What the engine was started with, for its chat page; under the served name, without its file."""
        key = await door.who(request.scope)
        door.check_model(key, None)
        status, found = await _engine(door).ask("/props")
        if status != 200 or not isinstance(found, dict):
            raise unavailable("upstream_unavailable", "the engine does not answer at the moment")
        return JSONResponse(found | {"model_alias": door.service.model, "model_path": door.service.model})

    @app.get("/", include_in_schema=False)
    @app.get("/{path:chat_page_file}", include_in_schema=False)
    async def file(request: Request, path: str = "") -> Response:
        try:
            async with _engine(door).get(f"/{path}", {"accept-encoding": "gzip"}) as answer:
                status, body = answer.status, await answer.read()
                headers = {name: answer.headers[name] for name in PASSED if name in answer.headers}
                packed = answer.headers.get("content-encoding") == "gzip"
        except (TimeoutError, *BROKEN):
            raise unavailable("upstream_unavailable", "the engine does not answer at the moment") from None
        if status != 200:
            raise Refusal(404, "not_found", f"GET /{path[:200]}: there is no such page")
        if packed and "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
        elif packed:
            body = gzip.decompress(body)
        return Response(body, headers=headers | {"referrer-policy": "no-referrer"})


def _engine(door: Door) -> Upstream:
    """The engine. Raises Refusal while it does not answer."""
    member = door.upstreams.members[0]
    if not member.healthy:
        raise unavailable("upstream_unavailable", "no engine answers at the moment")
    return member
