"""What services and clients read of each other over HTTP, and what a service takes in besides bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry
from pydantic import TypeAdapter, ValidationError
from pydantic_settings import BaseSettings
from starlette.responses import Response

from client.errors import ServiceRefused, UnexpectedAnswer
from client.http import Http
from client.http import Request as ClientRequest
from client.notices import _event, _lines
from services.proxy.domain import KeyFragRejected, cursor_of, fingerprint, number_of, split_share
from services.proxy.identity import identity_from_seed
from services.proxy.settings import ProxySettings
from services.records import cursors
from services.records.api import LastEventId
from services.records.figures import Figures
from services.records.proxies import Proxies, ProxyFailure, _check_receipt, _problem_code
from services.registry.settings import Settings as RegistrySettings
from shared.encoding import b64url, canonical_json
from shared.errors import PcehrError, RegistryUnavailable
from shared.identity import verify_chain
from shared.registry_client import PartyDirectory, discover, jwks_fetcher, list_proxies
from shared.schemas.examples import example
from shared.schemas.proxy import KfragsIn, ReceiptOut
from shared.schemas.records import NoticeOut, RecordsIn
from shared.statements import Receipt, sign
from shared.tokens import jwk
from shared.transparency import checkpoints
from shared.web import problems
from shared.web.limits import BodyLimit
from shared.wire import Role
from shared.witness_client import NotConsistent, OtherSize, Witness, WitnessClient, WitnessFailure
from tests.fuzz.decoder import Decoder
from tests.fuzz.decoders import wire
from tests.fuzz.decoders.text import of_text, raw
from tests.unit.protocol.parties import SeededParty
from tests.unit.transparency.trees import DIDS, LOG_KEY, NOW, WITNESSES

_runner = asyncio.Runner()


def _run(work: Awaitable[Any]) -> Any:
    async def done() -> Any:
        return await work

    return _runner.run(done())


class _Answering(httpx.AsyncBaseTransport):
    """The other end of a connection: it answers whatever is asked with what stands in it."""

    status, media_type, body = 200, "", b""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield self.body

        return httpx.Response(self.status, content=pieces(), headers={"content-type": self.media_type})


@cache
def _clients() -> tuple[_Answering, httpx.AsyncClient, Http]:
    transport = _Answering()
    return transport, httpx.AsyncClient(transport=transport), Http(transport)


def _client(status: int, media_type: str, body: bytes) -> httpx.AsyncClient:
    transport, http, _ = _clients()
    transport.status, transport.media_type, transport.body = status, media_type, body
    return http


# --- answers ----------------------------------------------------------------------------------------------------------


def _answering(
    ask: Callable[[httpx.AsyncClient], Awaitable[object]], status: int = 200, media_type: str = "application/json"
) -> Callable[[bytes], None]:
    """A decoder of the body with which somebody answers `ask`."""

    def run(data: bytes) -> None:
        _run(ask(_client(status, media_type, data)))

    return run


class _Nothing:
    async def load(self, did: str) -> None:
        return None

    async def save(self, did: str, entries: list[str]) -> None:
        return None


async def _resolve(http: httpx.AsyncClient) -> None:
    await PartyDirectory(http, "http://registry.test", _Nothing(), cache_seconds=0).resolve(example("patient_did"))


def _refused(status: int) -> Callable[[bytes], None]:
    """A problem as a client reads it: nothing in it may drive a terminal."""

    def run(data: bytes) -> None:
        _client(status, "application/problem+json", data)
        with pytest.raises(ServiceRefused) as refused:
            _run(_clients()[2].send(ClientRequest("GET", "http://service.test/")))
        assert refused.value.detail.isprintable()
        assert refused.value.code.isprintable()
        raise refused.value

    return run


_WITNESS = Witness(DIDS[0], "http://witness.test", frozenset([WITNESSES[0].verify_key]))
_ORIGIN = checkpoints.origin_of("records", LOG_KEY.verify_key)
_CHECKPOINT = checkpoints.verify_checkpoint(checkpoints.sign_checkpoint(LOG_KEY, "records", 7, bytes(32)), _ORIGIN)
_COSIGNATURE = checkpoints.cosign(_CHECKPOINT, DIDS[0], WITNESSES[0], NOW)


async def _cosign(http: httpx.AsyncClient) -> None:
    assert await WitnessClient(http).add_checkpoint(_WITNESS, _CHECKPOINT, 0, ()) == _COSIGNATURE


async def _stored(http: httpx.AsyncClient) -> None:
    """A proxy's answer to the records service, and the receipt in it."""
    proxies = Proxies(http, PartyDirectory(http, "", _Nothing(), cache_seconds=0), _figures(), timeout_seconds=60.0)
    body = KfragsIn(grant=example("grant"), sealed=example("sealed_share"))
    answer = await proxies._post(_PROXY, "/v1/kfrags", body, ReceiptOut)
    _check_receipt(_PROXY, answer.receipt, audience=DIDS[0], statement=_GRANT, grant=_GRANT, act="stored")


@cache
def _figures() -> Figures:
    return Figures(CollectorRegistry())


async def _shown(http: httpx.AsyncClient) -> None:
    await WitnessClient(http).checkpoints(_WITNESS)


# --- notices ----------------------------------------------------------------------------------------------------------


def _stream(data: bytes) -> None:
    """A stream of notices, in pieces that end anywhere."""

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 37):
            yield data[at : at + 37]

    async def lines() -> list[str]:
        return [line async for line in _lines(pieces())]

    fields: dict[str, str] = {}
    for line in _run(lines()):
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif fields:
            number, _ = _event(fields)
            assert 0 <= number < 2**63, "what a stream is asked to go on after"
            fields = {}


_DATA = canonical_json(NoticeOut.model_config["json_schema_extra"]["examples"][0])  # type: ignore[index,call-overload]
_NOTICES = b"id: 16\n\n: alive\n\nevent: disclosed\nid: 17\ndata: " + _DATA + b"\n\n"


# --- what a service takes in ------------------------------------------------------------------------------------------


_GRANT, _IDENTITY = example("grant_id"), identity_from_seed(bytes(range(32)))
_SIGNER = SeededParty(3, Role.PROXY)
_PROXY = verify_chain(_SIGNER.did, _SIGNER.chain())
_RECEIPT = sign(
    Receipt(
        iss=_SIGNER.did,
        aud=DIDS[0],
        iat=NOW,
        jti=b64url(bytes(16)),
        statement=_GRANT,
        grant=_GRANT,
        act="stored",
        seq=1,
    ),
    _SIGNER.identity(),
)
_ENVIRONMENT = canonical_json({
    "PCEHR_DATABASE_URL": "postgresql://u:p@localhost/registry", "token_signing_key": b64url(bytes(32)),
    "log_signing_key": b64url(bytes(32)), "seed": b64url(bytes(32)), "endpoint": "http://proxy.test:8411",
    "records_log": _ORIGIN, "witnessed_logs": _ORIGIN, "admitted_proxies": ",".join(DIDS), "threshold": "2",
})  # fmt: skip
_KFRAG = bytes(260)
_LAST_EVENT_ID: TypeAdapter[int | None] = TypeAdapter(LastEventId)


def _share(data: bytes) -> None:
    assert split_share(data, [fingerprint(_KFRAG)]) == [_KFRAG]


def _kfrag_at_rest(data: bytes) -> None:
    assert _IDENTITY.decrypt_kfrag(data, grant=_GRANT, entry=0) == _KFRAG


def _problem(data: bytes) -> None:
    code = _problem_code(data)
    assert code is None or code.isascii()


def _settings(kind: type[BaseSettings]) -> Callable[[bytes], None]:
    """A JSON object in the place of the environment: its members are what an operator has set."""

    def run(data: bytes) -> None:
        said = _ENVIRONMENTS.validate_json(data)
        kind(**said)

    return run


_ENVIRONMENTS: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, str | int | None])


def _after(said: str) -> None:
    _LAST_EVENT_ID.validate_strings(said)


_app = FastAPI()
problems.install(_app, lambda _: None)
_service = problems.CatchAll(BodyLimit(_app, {}))


@_app.post("/records")
async def _post(body: RecordsIn) -> Response:
    return Response(status_code=204)


@_app.get("/records")
async def _get(request: Request, number: int = 0) -> Response:
    return Response(status_code=204)


async def _asked(scope: dict[str, Any], body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to one request, as the server would hand it in."""
    sent: list[Any] = []
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return pending.pop() if pending else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    whole = {
        "type": "http", "http_version": "1.1", "path": "/records", "raw_path": b"/records", "query_string": b"",
        "headers": [], "server": ("service", 80), "client": ("client", 1), "scheme": "http", "root_path": "",
    }  # fmt: skip
    await _service(whole | scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def _body(data: bytes) -> None:
    headers = [(b"content-type", b"application/json")]
    status, answer = _run(_asked({"method": "POST", "headers": headers}, data))
    assert status < 500, answer
    if status >= 400:
        raise PcehrError


def _query(data: bytes) -> None:
    """A query string and the length that a request claims to have."""
    headers = [(b"content-length", data), (b"traceparent", data)]
    status, answer = _run(_asked({"method": "GET", "query_string": b"number=" + data, "headers": headers}, b""))
    assert status < 500, answer
    if status >= 400:
        raise PcehrError


_REGISTRY = (RegistryUnavailable,)
_PARTY = canonical_json({"entries": [example("patient_key_entry")]})
_PAGE = next(decoder.samples[0] for decoder in wire.DECODERS if decoder.name == "answer.registry.PartyPage")
_DISCOVERY = next(decoder.samples[0] for decoder in wire.DECODERS if decoder.name == "answer.registry.Discovery")
_WITNESSED = next(decoder.samples[0] for decoder in wire.DECODERS if decoder.name == "answer.log.WitnessedCheckpoints")
_PROBLEM = next(decoder.samples[0] for decoder in wire.DECODERS if decoder.name == "answer.common.Problem")

DECODERS = (
    Decoder("registry.party", _answering(_resolve), [_PARTY], share=0.05),
    Decoder(
        "registry.jwks",
        _answering(lambda http: jwks_fetcher(http, "http://registry.test")()),
        [canonical_json({"keys": [jwk(LOG_KEY.verify_key)]})],
        _REGISTRY,
        0.05,
    ),
    Decoder(
        "registry.discovery",
        _answering(lambda http: discover(http, "http://registry.test")),
        [_DISCOVERY],
        _REGISTRY,
        0.05,
    ),
    Decoder(
        "registry.proxies",
        _answering(lambda http: list_proxies(http, "http://registry.test")),
        [_PAGE],
        _REGISTRY,
        0.05,
    ),
    Decoder("witness.cosignature", _answering(_cosign), [raw(_COSIGNATURE)], (WitnessFailure,), 0.05),
    Decoder(
        "witness.size",
        _answering(_cosign, 409, "text/x.tlog.size"),
        [],
        (OtherSize, NotConsistent, WitnessFailure),
        0.05,
    ),
    Decoder("witness.checkpoints", _answering(_shown), [_WITNESSED], (WitnessFailure,), 0.05),
    Decoder(
        "proxy.receipt",
        _answering(_stored),
        [canonical_json({"receipt": _RECEIPT})],
        refusals=(ProxyFailure,),
        share=0.05,
    ),
    Decoder("proxy.refusal", _answering(_stored, 422), [], refusals=(ProxyFailure,), share=0.05),
    Decoder("settings.registry", _settings(RegistrySettings), [_ENVIRONMENT], refusals=(ValidationError,), share=0.1),
    Decoder("settings.proxy", _settings(ProxySettings), [_ENVIRONMENT], refusals=(ValidationError,), share=0.1),
    Decoder("problem.refused", _refused(422), [], (ServiceRefused,), 0.02),
    Decoder("problem.of-a-proxy", _problem, [_PROBLEM], ()),
    Decoder("notices", _stream, [_NOTICES], (UnexpectedAnswer,), 0.2),
    Decoder("last-event-id", of_text(_after), [b"17"], (ValidationError,)),
    Decoder("cursor.records", of_text(lambda said: cursors.encode(cursors.decode(said) or 0)), [b"AAAAAAAAABE"]),
    Decoder("cursor.proxy", of_text(lambda said: cursor_of(number_of(said))), [b"AAAAAAAAABE"]),
    Decoder("share-opened", _share, [_KFRAG], (KeyFragRejected,)),
    Decoder("kfrag-encrypted", _kfrag_at_rest, [_IDENTITY.encrypt_kfrag(_KFRAG, grant=_GRANT, entry=0)]),
    Decoder("request-body", _body, [canonical_json({"records": [example("record")]})], share=0.05),
    Decoder("request-query", _query, [b"17"], share=0.05),
)
