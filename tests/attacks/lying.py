"""A network on which one service lies: what a client asks goes to the real services, and some answers are false.

Nothing of the client is replaced. A `Lie` in a control run is idle: the same script meets the truth.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import httpx

Json = Any


class Refusal(Exception):
    """What a lie raises to answer with a problem."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass
class Asked:
    """One request on its way. `json` is its body, where it has one in JSON."""

    request: httpx.Request
    json: Json
    _network: httpx.AsyncBaseTransport = field(repr=False)

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.url.params

    @property
    def path(self) -> str:
        return self.request.url.path

    async def truth(self, body: Json = None) -> httpx.Response:
        """What the real service answers, to this request or to the same one with another body."""
        if body is None:
            sent = self.request
        else:
            headers = {
                name: value for name, value in self.request.headers.items() if name not in ("content-length", "host")
            }
            sent = httpx.Request(self.request.method, self.request.url, headers=headers, json=body)
        answer = await self._network.handle_async_request(sent)
        await answer.aread()
        return answer

    async def said(self, body: Json = None) -> Json:
        """The same where it is no refusal; a refusal is passed on."""
        answer = await self.truth(body)
        if not answer.is_success:
            raise Refusal(answer.status_code, answer.json()["code"])
        return answer.json()


How = Callable[[Asked], Json | Awaitable[Json]]
Change = Callable[[Json], Json]


@dataclass
class _Rule:
    service: str | None
    line: str
    how: How


class Lie:
    """What is answered falsely. `told` counts how often; in a control run nothing is."""

    def __init__(self, *, idle: bool) -> None:
        self.idle = idle
        self.told = 0
        self._rules: list[_Rule] = []
        self._heard: list[tuple[str | None, str, list[Json]]] = []

    def answer(self, service: str, line: str, how: How) -> None:
        """Answer requests like `GET /v1/parties/*` to this service with what `how` makes: JSON, text, bytes, or a
        whole response. `how` may ask the real service first, and raise `Refusal`."""
        if not self.idle:
            self._rules.insert(0, _Rule(service, line, how))

    def change(self, service: str, line: str, how: Change) -> None:
        """Let the real service answer, and change what it says where it is JSON and no refusal."""

        async def changed(asked: Asked) -> Json:
            return how(await asked.said())

        self.answer(service, line, changed)

    def hear(self, service: str, line: str) -> list[Json]:
        """All true answers to such requests from now on, also in a control run."""
        heard: list[Json] = []
        self._heard.append((service, line, heard))
        return heard

    def instead(self, honest: Json, forged: Json) -> Json:
        """The forged one; in a control run the honest one."""
        if self.idle:
            return honest
        self.told += 1
        return forged

    def stop(self) -> None:
        """Tell the truth from now on."""
        self._rules.clear()

    def _rule(self, service: str | None, line: str) -> _Rule | None:
        return next((one for one in self._rules if one.service == service and fnmatchcase(line, one.line)), None)

    def _ears(self, service: str | None, line: str) -> list[list[Json]]:
        return [heard for of, pattern, heard in self._heard if of == service and fnmatchcase(line, pattern)]


class Network(httpx.AsyncBaseTransport):
    """Real connections to the real services, whose names are by their addresses, and the lie in between."""

    def __init__(self, urls: Mapping[str, str], lie: Lie) -> None:
        self._network = httpx.AsyncHTTPTransport(verify=False)  # Loopback speaks no TLS, and loading roots takes long.
        self._names = {urlsplit(url).netloc: name for name, url in urls.items()}
        self._lie = lie

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        service = self._names.get(request.url.netloc.decode())
        line = f"{request.method} {request.url.path}"
        rule, ears = self._lie._rule(service, line), self._lie._ears(service, line)
        if rule is None and not ears:
            return await self._network.handle_async_request(request)
        body = await request.aread()
        asked = Asked(request, json.loads(body) if _is_json(request.headers) and body else None, self._network)
        if rule is None:
            truth = await asked.truth()
            for heard in ears:
                if truth.is_success:
                    heard.append(truth.json())
            return _again(truth, request)
        self._lie.told += 1
        try:
            said = rule.how(asked)
            said = await said if inspect.isawaitable(said) else said
        except Refusal as refusal:
            problem = {"code": refusal.code, "detail": "No.", "title": "No.", "status": refusal.status}
            return httpx.Response(
                refusal.status, json=problem, headers={"content-type": "application/problem+json"}, request=request
            )
        return _response(said, request)

    async def aclose(self) -> None:
        await self._network.aclose()


def _is_json(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").startswith("application/json")


def _again(truth: httpx.Response, request: httpx.Request) -> httpx.Response:
    headers = {"content-type": truth.headers.get("content-type", "application/json")}
    return httpx.Response(truth.status_code, content=truth.content, headers=headers, request=request)


def _response(said: Json, request: httpx.Request) -> httpx.Response:
    if isinstance(said, httpx.Response):
        return _again(said, request)
    if isinstance(said, bytes):
        return httpx.Response(200, content=said, request=request)
    return httpx.Response(200, json=said, request=request)
