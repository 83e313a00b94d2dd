"""Builds a service's FastAPI app: the same middleware, documents, health and metrics for all three."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi_offline import FastAPIOffline
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from shared.errors import DatabaseUnavailable, Malformed, PcehrError, TooLarge, TooManyRequests
from shared.schemas.common import Problem
from shared.web import problems
from shared.web.access import PROBES, Admission
from shared.web.limits import BodyLimit, ResponseHeaders, body_limit
from shared.web.logs import log_unexpected
from shared.web.metrics import Metrics
from shared.web.observation import ObserveRequests
from shared.web.rates import Network, RequestRates

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Readiness = Callable[[], Awaitable[None]]
log = logging.getLogger("pcehr.web")


def create_app(
    *,
    title: str,
    description: str,
    tags: Sequence[dict[str, str]],
    routers: Sequence[APIRouter],
    lifespan: Lifespan,
    ready: Readiness,
    body_limits: Mapping[str, int],
    metrics: Metrics,
    rates: RequestRates,
    token_before_body: Sequence[str] = (),
    forwarded_by: Sequence[Network] = (),
    not_ready: Sequence[type[PcehrError]] = (DatabaseUnavailable,),
) -> FastAPI:
    """Assemble an app. `ready` raises one of `not_ready` while the service cannot do its work; `metrics` are shown.

    `token_before_body` names operations, as "METHOD /path/prefix", whose large bodies are read only for the holder of
    a valid access token. `rates` bound how often anybody may ask; of where a request comes from nobody is believed but
    `forwarded_by`.

    Swagger UI's files are served by the service itself, so that no page asks another host for anything.
    """
    app = FastAPIOffline(
        title=title,
        description=description,
        version=version("pcehr"),
        openapi_tags=[*tags, {"name": "operations", "description": "Health and figures."}],
        lifespan=_telling_why(lifespan),
        redoc_url=None,
        # A redirect would repeat whatever host the request claimed to be for.
        redirect_slashes=False,
        swagger_ui_parameters={
            "persistAuthorization": False,
            "displayRequestDuration": True,
            "tryItOutEnabled": True,
            # The schemas stand with their operations; the list of all of them stays folded.
            "defaultModelsExpandDepth": 0,
        },
        license_info={"name": "GPL-3.0-only", "identifier": "GPL-3.0-only"},
        separate_input_output_schemas=False,
    )
    problems.install(app, metrics.count_beyond)
    for router in routers:
        app.include_router(router)
    app.include_router(_health(ready, not_ready))
    app.include_router(metrics.router())
    app.add_middleware(Admission, rates=rates, operations=token_before_body)
    app.add_middleware(BodyLimit, limits=body_limits)
    app.add_middleware(problems.CatchAll)
    app.add_middleware(ResponseHeaders)
    app.add_middleware(ObserveRequests, metrics=metrics)
    if forwarded_by:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=[str(network) for network in forwarded_by])
    _complete_openapi(app, body_limits)
    return app


def _telling_why(lifespan: Lifespan) -> Lifespan:
    """Logs what a start or a stop failed on; uvicorn would log its text as well, of which only the kind may be told."""

    @asynccontextmanager
    async def told(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with lifespan(app):
                yield
        except Exception as error:
            log_unexpected(log, "the service could not start or stop properly", error)
            raise

    return told


_INVALID_REQUEST = "`invalid_request`: The request does not fit the schema of this operation."


def _health(ready: Readiness, not_ready: Sequence[type[PcehrError]]) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", summary="Is the process alive?", status_code=204, response_class=Response)
    async def healthz() -> Response:
        return Response(status_code=204)

    @router.get(
        "/readyz",
        summary="Can the service do its work?",
        status_code=204,
        response_class=Response,
        responses=problems.responses(*not_ready),
    )
    async def readyz() -> Response:
        await ready()
        return Response(status_code=204)

    return router


def _complete_openapi(app: FastAPI, limits: Mapping[str, int]) -> None:
    """Say in the OpenAPI document what middleware and handlers do: bounds of bodies and the shape of problems."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs", {}))
        schemas["Problem"] = problem
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _complete_operation(operation, body_limit(limits, method.upper(), path))
                if path not in PROBES:
                    _declare_rate(operation["responses"])
        app.openapi_schema = document
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _complete_operation(operation: dict[str, Any], limit: int) -> None:
    answers = operation["responses"]
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", [])):
        # A slash in the place of a parameter leads to no operation at all.
        _may_be(answers, problems.NoSuchRoute)
    if "422" in answers and "application/json" in answers["422"].get("content", {}):
        answers["422"] = {"description": _INVALID_REQUEST, "content": problems.content(problems.InvalidRequest)}
    elif "422" in answers and ("requestBody" in operation or operation.get("parameters")):
        # FastAPI says nothing of the schema where a route declares this status for refusals of its own.
        answers["422"]["description"] = f"{_INVALID_REQUEST}\n\n{answers['422']['description']}"
    if "requestBody" in operation:
        operation["x-max-body-bytes"] = limit
        _may_be(answers, Malformed)
        answers.setdefault(
            str(TooLarge.status),
            {"description": f"`{TooLarge.code}`: at most {limit} bytes.", "content": problems.content(TooLarge)},
        )
    answers.setdefault(
        "500", {"description": f"`{PcehrError.code}`: {PcehrError.title}", "content": problems.content(PcehrError)}
    )


_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds until a request would be taken.", "schema": {"type": "integer"}}
}


def _declare_rate(answers: dict[str, Any]) -> None:
    """That anybody may be asked to wait."""
    _may_be(answers, TooManyRequests)
    answers[str(TooManyRequests.status)]["headers"] = _RETRY_AFTER


def _may_be(answers: dict[str, Any], error: type[PcehrError]) -> None:
    """Say that an operation can be refused in this way, beside what its route says of the same status."""
    answer = answers.setdefault(str(error.status), {"description": "", "content": problems.content(error)})
    if f"`{error.code}`" not in answer["description"]:
        answer["description"] = f"{answer['description']}\n\n`{error.code}`: {error.title}".lstrip()
