"""The documented routes beside the streaming one: models, usage, health, metrics, console."""

import hmac
import json
import time
from importlib import resources
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from halfbyte import __version__
from halfbyte.errors import UsageError
from halfbyte.serve.addresses import is_loopback
from halfbyte.serve.door.chat_page import add_chat_page
from halfbyte.serve.door.dialects import DIALECTS
from halfbyte.serve.door.door import Door
from halfbyte.serve.door.refusal import Refusal, unavailable
from halfbyte.serve.door.upstream import BROKEN
from halfbyte.serve.ledger.errors import LedgerError
from halfbyte.serve.ledger.report import standing_of
from halfbyte.serve.usage import query_from, usage_document

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CHAT_PAGE = b"<!-- llama.cpp's chat page -->"
LINK = b'<a href="./">llama.cpp\'s own chat page</a>'


def pages(door: Door, started: float, metrics_key: str | None) -> FastAPI:
    """metrics_key: what scrapers elsewhere than on this machine must send; None lets only this machine read metrics."""
    app = FastAPI(title="Halfbyte", version=__version__, docs_url=None, redoc_url=None)

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        door.refused("", refusal)
        return _shown(refusal)

    @app.exception_handler(LedgerError)
    async def closed(request: Request, error: LedgerError) -> Response:
        return _shown(unavailable("ledger_unavailable", "the ledger cannot be read at the moment"))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        message = f"{request.method} {request.url.path[:200]}: {error.detail}"
        return _shown(Refusal(error.status_code, code, message, headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _shown(Refusal(400, "invalid_value", f"{first['loc'][-1]}: {first['msg']}", param=str(first["loc"][-1])))

    def model() -> dict[str, Any]:
        known = {} if door.service.context is None else {"max_model_len": door.service.context}
        return {"id": door.service.model, "object": "model", "created": int(started), "owned_by": "halfbyte"} | known

    @app.get("/v1/models", tags=["models"])
    async def models(request: Request) -> dict[str, Any]:
        """Models that this key may ask for."""
        key = await door.who(request.scope)
        allowed = key.limits.models is None or door.service.model in key.limits.models
        return {"object": "list", "data": [model()] if allowed else []}

    @app.get("/v1/models/{name:path}", tags=["models"])
    async def one_model(request: Request, name: str) -> dict[str, Any]:
        """One model."""
        door.check_model(await door.who(request.scope), name)
        return model()

    @app.get("/v1/usage", tags=["usage"])
    async def usage(
        request: Request,
        by: Annotated[str | None, Query(description="Of tenant, model, day, request.")] = None,
        since: Annotated[str | None, Query(description="First day, YYYY-MM-DD, UTC.")] = None,
        until: Annotated[str | None, Query(description="Last day.")] = None,
    ) -> dict[str, Any]:
        """What the key's tenant used; its own rows alone."""
        key = await door.who(request.scope)
        try:
            query = query_from(by, since, until, tenant=key.tenant)
        except UsageError as error:
            raise Refusal(400, "invalid_value", error.message) from None
        return await door.ledger.run(usage_document(query))

    @app.get("/v1/limits", tags=["usage"])
    async def limits(request: Request) -> dict[str, Any]:
        """The key's tenant: its limits, what it used and what is reserved."""
        key = await door.who(request.scope)
        standing = await door.ledger.run(standing_of(key.tenant, time.time()))
        return {"tenant": key.tenant, "limits": key.limits.model_dump(mode="json")} | standing

    @app.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """Whether this door lives."""
        return {"status": "ok"}

    @app.get("/ready", tags=["operation"])
    async def ready() -> Response:
        """Whether it takes requests: an engine answers, the ledger can be read, and it is not closing."""
        if door.draining:
            return _shown(unavailable("draining", "this door is closing", retry_s=5))
        if not door.upstreams.alive:
            return _shown(unavailable("upstream_unavailable", "no engine answers at the moment"))
        await door.ledger.run(standing_of("", time.time()))
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", tags=["operation"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """For Prometheus: from this machine, or with the key that the door was started with."""
        _check_scraper(request, metrics_key)
        return Response(door.metrics.text(), media_type=METRICS_TYPE)

    @app.get("/metrics/engine", tags=["operation"], response_class=PlainTextResponse)
    async def engine_metrics(request: Request, upstream: Annotated[int, Query(ge=0)] = 0) -> Response:
        """The engine's own metrics, as they are. upstream: its number."""
        _check_scraper(request, metrics_key)
        if upstream >= len(door.upstreams.members):
            raise Refusal(404, "not_found", f"there is no upstream {upstream}")
        member = door.upstreams.members[upstream]
        try:
            async with member.get("/metrics") as answer:
                return Response(await answer.read(), answer.status, media_type=METRICS_TYPE)
        except (TimeoutError, *BROKEN):
            raise unavailable("upstream_unavailable", "the engine does not answer at the moment") from None

    @app.get("/console", tags=["operation"], response_class=HTMLResponse)
    async def console() -> Response:
        """Live load, usage and a small chat, in a browser."""
        page = (resources.files("halfbyte.serve.door") / "console.html").read_bytes()
        page = page.replace(CHAT_PAGE, LINK if door.service.embedded else b"")
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        return Response(
            page,
            media_type="text/html; charset=utf-8",
            headers={"content-security-policy": f"{policy}; frame-ancestors 'none'", "referrer-policy": "no-referrer"},
        )

    if door.service.embedded:
        add_chat_page(app, door)
    _document_streaming(app)
    return app


def _shown(refusal: Refusal) -> Response:
    return Response(refusal.body(), refusal.status, headers=refusal.headers, media_type="application/json")


def _check_scraper(request: Request, metrics_key: str | None) -> None:
    """Metrics name tenants: they are for whoever runs the door."""
    if metrics_key is not None:
        given = request.headers.get("authorization", "").partition(" ")[2]
        if hmac.compare_digest(given.encode("utf-8", "replace"), metrics_key.encode()):
            return
    elif request.client is not None and is_loopback(request.client.host):
        return
    raise Refusal(403, "not_allowed", "metrics are for whoever runs this door", type="permission_error")


def _document_streaming(app: FastAPI) -> None:
    """Put the routes that the door answers itself into the OpenAPI document."""
    own = app.openapi

    def openapi() -> dict[str, Any]:
        schema: dict[str, Any] = json.loads(json.dumps(own()))
        for path in (*DIALECTS, "/tokenize"):
            schema["paths"][path] = {"post": _operation(path)}
        schema["components"] = {
            **schema.get("components", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        }
        schema["security"] = [{"key": []}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _operation(path: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": {"type": "string"}}
    if path != "/tokenize":
        count = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
        fields |= {"stream": {"type": "boolean"}, "max_tokens": count}
    schema = {"type": "object", "properties": fields}
    answers = {
        str(code): {"description": text}
        for code, text in (
            (200, "The engine's answer."),
            (400, "Nonsense, said by the door or the engine."),
            (401, "No valid key."),
            (403, "Not allowed for this key."),
            (404, "No such model."),
            (413, "Too large."),
            (429, "A limit binds."),
            (502, "The engine went away."),
            (503, "Not now."),
        )
    }
    return {
        "tags": ["generation"],
        "summary": "Passed on to the engine" if path == "/tokenize" else "Reserved, passed on to the engine, settled",
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": answers,
    }
