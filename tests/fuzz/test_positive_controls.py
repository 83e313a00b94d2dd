"""The same machinery, with the same budget, on decoders that have a fault: each must be found."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from shared.encoding import b64url, canonical_json, from_canonical_json
from shared.errors import Malformed
from shared.statements import Denial, verify_stored
from tests.fuzz import decoder as under_trial
from tests.fuzz.campaign import campaign
from tests.fuzz.decoder import Broken, Decoder
from tests.fuzz.decoders import BY_NAME
from tests.fuzz.decoders.statements import _VERIFIED, _signed
from tests.fuzz.decoders.text import raw, text
from tests.fuzz.test_decoders import EXECUTIONS, SEED


def indexes_beyond_the_end(data: bytes) -> None:
    """Believes the length that stands in the first byte."""
    if not data:
        raise Malformed
    data[data[0]]


def ignores_what_follows(data: bytes) -> bytes:
    """Reads eight bytes and does not look at the rest."""
    if len(data) < 8:
        raise Malformed
    return data[:8]


def takes_any_spelling(data: bytes) -> bytes:
    """JSON that need not be canonical."""
    try:
        return canonical_json(json.loads(data))
    except ValueError:
        raise Malformed from None


def trusts_a_signed_payload(data: bytes) -> None:
    """What stands behind the signature is taken to have a member: only a payload that is signed anew gets there."""
    token = _signed(data, Denial.typ)
    key = _VERIFIED.current_identity_key
    claims = from_canonical_json(data)
    assert token
    assert key
    if isinstance(claims, dict):
        claims["reason"].upper()


def never_ends(data: bytes) -> None:
    while b"\xff" in data:
        pass


def checks_no_signature(data: bytes) -> bytes:
    """Takes every signature for good."""
    token = text(data)
    try:
        verify_stored(token, Denial, _VERIFIED)
    except Malformed:
        raise
    except Exception:
        return b""
    return raw(token)


FAULTS: list[tuple[Callable[[bytes], bytes | None], bytes, str]] = [
    (indexes_beyond_the_end, b"\x03abcd", "IndexError"),
    (ignores_what_follows, bytes(8), "second spelling"),
    (takes_any_spelling, b'{"a":1,"b":[2]}', "second spelling"),
    (trusts_a_signed_payload, BY_NAME["statement-signed-anew.denial"].samples[0], "undeclared"),
    (never_ends, b"abcd", "not done"),
    (checks_no_signature, BY_NAME["statement.denial"].samples[0], "second spelling"),
]


@pytest.mark.parametrize(("use", "sample", "what"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_fault_is_found(
    use: Callable[[bytes], bytes | None], sample: bytes, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_trial, "SECONDS", 0.2)
    with pytest.raises(Broken, match=what):
        campaign(Decoder(use.__name__, use, [sample]), EXECUTIONS // 2, SEED)


def test_the_same_seed_finds_the_same_input() -> None:
    planted = Decoder("planted", ignores_what_follows, [bytes(8)])
    found = []
    for _ in range(2):
        with pytest.raises(Broken) as broken:
            campaign(planted, EXECUTIONS, SEED)
        found.append(broken.value.data)
    assert found[0] == found[1]
    assert b64url(found[0])
