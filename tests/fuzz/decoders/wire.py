"""Bodies of requests and answers: every model of `shared.schemas`, as a service and as a client take it in.

The list is made of the models themselves, so that a new one is tried without being named here; what it needs is a
sample, from its own example in the OpenAPI document or from below.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from client.errors import UnexpectedAnswer
from client.transport import _shape
from shared.encoding import b64url, canonical_json
from shared.errors import PcehrError
from shared.schemas import common, events, log, proxy, records, registry
from shared.schemas.examples import example
from shared.tokens import jwk
from tests.fuzz.decoder import Decoder
from tests.unit.transparency.trees import DIDS, LOG_KEY, NOW

_HASH = b64url(bytes(range(32)))
_DID = DIDS[0]
_PAGE = {"next": "AAAAAAAAAAE"}
_RECORD: dict[str, Any] = example("record")
_ACCEPTED = {"id": _HASH, "kind": "pcehr-grant+jwt", "received_at": NOW}
_PAST = {"manifest": _RECORD["manifest"], "authority": example("grant")}
_REQUEST = {
    "id": _HASH, "statement": example("disclosure_request"), "state": "denied", "received_at": NOW,
    "denial": example("denial"), "grants": [example("grant_id")],
}  # fmt: skip
_GRANT_PROXY = {"did": _DID, "stored": "e30.e30.AA", "erased": None, "problem": "proxy_unreachable"}
_GRANT = {
    "id": example("grant_id"), "grant": example("grant"), "state": "active", "received_at": NOW, "disclosed": 3,
    "proxies": [_GRANT_PROXY], "revocation": example("revocation"),
}  # fmt: skip
_CFRAG = {"proxy": _DID, "cfrag": b64url(bytes(359))}
_DISCLOSED = {"record": _RECORD, "cfrags": [_CFRAG]}
_RECEIPT = {"proxy": _DID, "receipt": "e30.e30.AA"}
_PARTY = {
    "did": _DID, "role": "recipient", "seq": 0, "name": "Demo Practice", "organisation": None, "endpoint": None,
    "entries": [example("recipient_key_entry")],
}  # fmt: skip
_URL = "http://127.0.0.1:8400"

_SAMPLES: dict[type[BaseModel], Any] = {
    common.Accepted: _ACCEPTED,
    events.LogEventPage: {"items": [{"n": 1, "commitment": _HASH, "event": None, "salt": None}], **_PAGE},
    log.Inclusion: {"index": 6, "path": [_HASH]},
    log.WitnessedCheckpoint: {"origin": "pcehr/records/z6Mk", "checkpoint": log.EXAMPLE_CHECKPOINT},
    proxy.ReceiptOut: {"receipt": "e30.e30.AA"},
    proxy.ReencryptionOut: {"receipt": "e30.e30.AA", "cfrags": [_CFRAG["cfrag"]]},
    proxy.Identity: {"did": _DID, "entries": [example("proxy_key_entry")], "engine": "umbral-pre"},
    records.RecordIn: _RECORD,
    records.RecordsAccepted: {"items": [_ACCEPTED]},
    records.RecordOut: _RECORD | {"authority": example("grant")},
    records.RecordPage: {"items": [_RECORD], **_PAGE},
    records.PastVersion: _PAST,
    records.PastVersionPage: {"items": [_PAST], **_PAGE},
    records.RequestOut: _REQUEST,
    records.RequestPage: {"items": [_REQUEST], **_PAGE},
    records.SealedShare: {"proxy": _DID, "sealed": example("sealed_share")},
    records.GrantProxyOut: _GRANT_PROXY,
    records.GrantOut: _GRANT,
    records.GrantPage: {"items": [_GRANT], **_PAGE},
    records.CfragOut: _CFRAG,
    records.DisclosedRecord: _DISCLOSED,
    records.ReceiptFrom: _RECEIPT,
    records.DisclosureOut: {"grant": example("grant_id"), "records": [_DISCLOSED], "receipts": [_RECEIPT]},
    records.BlobStored: {"sha256": _HASH, "size": 70_000},
    registry.Party: _PARTY,
    registry.PartyPage: {"items": [_PARTY], **_PAGE},
    registry.ScopeKeyPage: {"items": [example("scope_key")], **_PAGE},
    registry.TokenResponse: {"access_token": "e30.e30.AA", "token_type": "Bearer", "expires_in": 300},
    registry.Jwks: {"keys": [jwk(LOG_KEY.verify_key)]},
    registry.AuthorizationServer: {
        "issuer": _URL, "token_endpoint": _URL, "jwks_uri": _URL, "grant_types_supported": ["client_credentials"],
        "response_types_supported": [], "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["EdDSA"],
    },
    registry.Discovery: {
        "issuer": _URL, "token_endpoint": _URL, "jwks_uri": _URL, "records_url": _URL, "threshold": 2,
        "registry_log": "pcehr/registry/z6Mk", "records_log": "pcehr/records/z6Mk", "witness_faults": 1,
    },
}  # fmt: skip


def _sample(model: type[BaseModel]) -> bytes:
    if model in _SAMPLES:
        return canonical_json(_SAMPLES[model])
    extra: Any = model.model_config["json_schema_extra"]
    return canonical_json(extra["examples"][0])


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        if model.__module__.startswith("shared.schemas"):
            yield model
        yield from _models(model)


def _as_a_client(model: type[BaseModel]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        _shape(model, data)

    return run


def _as_a_service(model: type[BaseModel]) -> Callable[[bytes], None]:
    """As FastAPI does it, from Python's values; it answers 400 itself for what is no JSON."""

    def run(data: bytes) -> None:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return
        model.model_validate(value)

    return run


def _name(model: type[BaseModel]) -> str:
    return f"{model.__module__.rpartition('.')[2]}.{model.__name__}"


_MODELS = (*_models(common.Body), common.Problem, registry.TokenRequest)

DECODERS = tuple(
    decoder
    for model in _MODELS
    for decoder in (
        Decoder(
            f"answer.{_name(model)}",
            _as_a_client(model),
            [_sample(model)],
            refusals=(UnexpectedAnswer,),
            share=0.25,
        ),
        Decoder(
            f"request.{_name(model)}",
            _as_a_service(model),
            [_sample(model)],
            refusals=(ValidationError, PcehrError),
            share=0.25,
        ),
    )
    # An answer has no way into a service, and a request none into a client.
    if decoder.name.startswith("request.") == model.__name__.endswith(("In", "SignUp", "Rotation", "Request"))
)
