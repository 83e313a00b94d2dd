"""Encodings, identifiers and names: base64url, canonical JSON, DIDs, traces, plain text."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from shared import did, wire
from shared.encoding import b64url, canonical_json, from_b64url, from_canonical_json
from shared.errors import PcehrError
from shared.statements import Endpoint
from shared.trace import continue_trace, parse_traceparent
from tests.fuzz.decoder import Decoder
from tests.fuzz.decoders.text import of_text
from tests.fuzz.vectors import accepted

KEY = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
"""The public key of RFC 8032's first test."""
_NAMES: TypeAdapter[object] = TypeAdapter(tuple[wire.Label, wire.RecordId, Endpoint])


def _base64url_of_32(said: str) -> str:
    return b64url(from_b64url(said, 32))


def _key_id(said: str) -> str:
    return did.key_id(*did.split_key_id(said))


def _traceparent(said: str) -> None:
    span = parse_traceparent(said)
    assert continue_trace([said]).trace_id != "0" * 32
    if span is not None:
        assert parse_traceparent(span.traceparent) == span


def _names(data: bytes) -> None:
    _NAMES.validate_json(data)


DECODERS = (
    Decoder(
        "base64url",
        of_text(lambda said: b64url(from_b64url(said))),
        [vector["text"].encode() for vector in accepted("base64url")],
    ),
    Decoder("base64url-of-32-bytes", of_text(_base64url_of_32), [b64url(KEY).encode()]),
    Decoder(
        "canonical-json",
        lambda data: canonical_json(from_canonical_json(data)),
        [vector["text"].encode() for vector in accepted("canonical_json")],
    ),
    Decoder(
        "multibase",
        of_text(lambda said: did.multibase(did.key_from_multibase(said))),
        [did.multibase(KEY).encode()],
    ),
    Decoder(
        "did",
        of_text(lambda said: did.did_from_key(did.key_from_did(said))),
        [did.did_from_key(KEY).encode()],
    ),
    Decoder("key-id", of_text(_key_id), [did.key_id(did.did_from_key(KEY), KEY).encode()]),
    Decoder(
        "traceparent",
        of_text(_traceparent),
        [
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"cc-" + b"1" * 32 + b"-" + b"2" * 16 + b"-09-x",
        ],
        refusals=(),
    ),
    Decoder(
        "names-record-ids-and-endpoints",
        _names,
        ['["Dr. Zoë","0198f000-0000-7000-8000-000000000001","http://[::1]:8411/proxy"]'.encode()],
        refusals=(ValidationError, PcehrError),
    ),
)
