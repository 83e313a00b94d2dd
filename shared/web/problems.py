"""Turns every error into an RFC 9457 problem: one handler for the platform's own, and a net below it.

No problem carries a stack trace, the text of a foreign exception, or the value that was refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import trace
from shared.errors import Malformed, NotFound, PcehrError, QuotaExceeded
from shared.schemas.common import Problem
from shared.web.logs import log_unexpected

MEDIA_TYPE = "application/problem+json"
log = logging.getLogger("pcehr.web")


def problem_response(error: PcehrError, /, **members: Any) -> JSONResponse:
    """The response for one of the platform's own errors; `members` are extension members of the problem."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _problem(error.status, error.code, error.title, error.detail, headers=headers, **members)


def responses(*errors: type[PcehrError]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route: each error it can give, by status, with its codes and a description."""
    by_status: dict[int, list[type[PcehrError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {
        status: {
            "description": "\n\n".join(f"`{error.code}`: {error.title}" for error in group),
            "content": content(group[0]),
        }
        for status, group in by_status.items()
    }


def content(error: type[PcehrError]) -> dict[str, Any]:
    """The `content` of a response in an OpenAPI document, with this error as the example."""
    example = Problem(
        type=f"urn:pcehr:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.title,
        code=error.code,
    )
    return {
        MEDIA_TYPE: {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "example": example.model_dump(exclude_none=True),
        }
    }


def install(app: FastAPI, count_beyond: Callable[[str], None]) -> None:
    """Install the handlers on an app; `count_beyond` is told of requests beyond a quota."""

    async def own_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, PcehrError)
        if isinstance(error, QuotaExceeded):
            count_beyond("quota")
        return problem_response(error)

    app.add_exception_handler(PcehrError, own_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_exception)


class CatchAll:
    """The net: whatever escapes the handlers becomes a bare 500, and only its kind and place are logged.

    The text of an unexpected exception may hold anything, hence it is neither sent nor logged.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watching_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watching_send)
        except ClientDisconnect:
            # Nobody is there to read it; it counts as the caller's doing all the same, and as no fault of the service.
            if not started:
                await problem_response(Malformed())(scope, receive, send)
        except Exception as error:
            log_unexpected(log, "unexpected", error)
            if not started:
                await problem_response(PcehrError())(scope, receive, send)


class NoSuchRoute(NotFound):
    code = "no_such_route"
    title = "There is no such resource."


class InvalidRequest(PcehrError):
    code = "invalid_request"
    status = 422
    title = "The request does not fit the schema of this operation."


async def _invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"place": ".".join(str(part) for part in item["loc"])[:200], "problem": str(item["msg"])[:200]}
        for item in error.errors()[:20]
    ]
    return problem_response(InvalidRequest(), errors=errors)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        # FastAPI's word for a body that it cannot read at all.
        return problem_response(Malformed())
    if error.status_code == 404:
        return problem_response(NoSuchRoute())
    title = "This method is not allowed here." if error.status_code == 405 else "The request was refused."
    code = "method_not_allowed" if error.status_code == 405 else "http_error"
    headers = dict(error.headers or {})
    if error.status_code == 405 and (allowed := _methods_of(request)):
        headers["Allow"] = ", ".join(allowed)
    return _problem(error.status_code, code, title, title, headers=headers)


def _methods_of(request: Request) -> list[str]:
    """All methods that the path has (RFC 9110 section 10.2.1); Starlette names those of one route only."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    found = {
        method.upper() for template in paths if _pattern(template).match(request.url.path) for method in paths[template]
    }
    return sorted(found)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return compile_path(template)[0]


def _problem(
    status: int, code: str, title: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any
) -> JSONResponse:
    span = trace.current()
    body = Problem(
        type=f"urn:pcehr:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        code=code,
        trace_id=span.trace_id if span is not None else None,
    )
    content = body.model_dump(exclude_none=True) | members
    return JSONResponse(content, status_code=status, media_type=MEDIA_TYPE, headers=headers)
