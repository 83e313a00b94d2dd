"""A record at rest: envelope, header, body, and the parts in them that are read once they are authentic."""

from __future__ import annotations

from typing import Any

from shared.crypto import aead, stream
from shared.crypto.derivation import Seed, hkdf
from shared.crypto.record import (
    RecordContext,
    RecordKey,
    _pad_block,
    _unpad_block,
    body_ciphertext_size,
)
from shared.crypto.umbral import Capsule, PublicKey, VerifiedCapsuleFrag
from shared.encoding import canonical_json
from tests.fuzz.decoder import Decoder
from tests.fuzz.vectors import accepted

_ENVELOPE = accepted("unwrap_original")[0]
_SHARED = accepted("unwrap_reencrypted")[0]
_HEADER = accepted("header")[0]
_KEY, _DIGEST = bytes(range(32)), bytes(range(32, 64))
_CONTEXT = RecordContext(**_HEADER["context"])
_BODY_KEY = RecordKey(bytes.fromhex(_HEADER["cek"]))
_LENGTH = 300
_BODY = b"".join(_BODY_KEY.encrypt_body([b"\x01" * _LENGTH], _LENGTH, _CONTEXT))


def _envelope(data: bytes) -> bytes:
    key = Seed.from_bytes(bytes.fromhex(_ENVELOPE["seed"])).umbral_key(_ENVELOPE["label"])
    capsule = Capsule.from_bytes(bytes.fromhex(_ENVELOPE["capsule"]))
    opened = RecordKey.unwrap_original(key, capsule, data, RecordContext(**_ENVELOPE["context"]))
    opened.check_commitment(bytes.fromhex(_ENVELOPE["commitment"]))
    return bytes.fromhex(_ENVELOPE["wrapped"])


def _envelope_from_shares(data: bytes) -> bytes:
    key = Seed.from_bytes(bytes.fromhex(_SHARED["seed"])).umbral_key(_SHARED["label"])
    capsule = Capsule.from_bytes(bytes.fromhex(_SHARED["capsule"]))
    delegating = PublicKey.from_bytes(bytes.fromhex(_SHARED["delegating_key"]))
    cfrags = [VerifiedCapsuleFrag.from_verified_bytes(bytes.fromhex(cfrag)) for cfrag in _SHARED["cfrags"]]
    RecordKey.unwrap_reencrypted(key, delegating, capsule, cfrags, data, RecordContext(**_SHARED["context"]))
    return bytes.fromhex(_SHARED["wrapped"])


def _header(data: bytes) -> bytes:
    assert _BODY_KEY.decrypt_header(data, _CONTEXT) == _HEADER["header"]
    return bytes.fromhex(_HEADER["ciphertext"])


def _header_inside(data: bytes) -> bytes:
    """What an author may have encrypted in the place of a header."""
    sealed = _sealed(_BODY_KEY, data)
    return _pad_block(canonical_json(_BODY_KEY.decrypt_header(sealed, _CONTEXT)))


def _sealed(key: RecordKey, plaintext: bytes) -> bytes:
    return aead.encrypt(key._header_key(), plaintext, _CONTEXT.digest())


def _stream(data: bytes) -> bytes:
    plaintext = b"".join(stream.decrypt_chunks(_KEY, _DIGEST, [data[: len(data) // 2], data[len(data) // 2 :]]))
    return b"".join(stream.encrypt_chunks(_KEY, _DIGEST, [plaintext]))


def _chunk(data: bytes) -> bytes:
    """Index (8 bytes), final flag (1 byte), chunk."""
    index, final = int.from_bytes(data[:8], "big"), data[8:9] == b"\x01"
    stream.decrypt_chunk_at(_KEY, _DIGEST, index, data[9:], final)
    return _whole_chunk()


def _whole_chunk() -> bytes:
    return bytes(8) + b"\x01" + b"".join(stream.encrypt_chunks(_KEY, _DIGEST, [b"a chunk"]))


def _body(data: bytes) -> bytes:
    assert b"".join(_BODY_KEY.decrypt_body([data], _LENGTH, _CONTEXT)) == b"\x01" * _LENGTH
    return _BODY


def _body_inside(data: bytes) -> bytes:
    """What an author may have encrypted in the place of a padded body: of the size that its length makes it have."""
    key = hkdf(bytes.fromhex(_HEADER["cek"]), b"pcehr/v1/payload", 32)
    ciphertext = b"".join(stream.encrypt_chunks(key, _CONTEXT.digest(), [data]))
    opened = b"".join(_BODY_KEY.decrypt_body([ciphertext], _LENGTH, _CONTEXT))
    return opened + bytes(body_ciphertext_size(_LENGTH) - 16 - _LENGTH)


def _chunk_of_body(data: bytes) -> bytes:
    assert _BODY_KEY.decrypt_body_chunk(0, data, _LENGTH, _CONTEXT) == b"\x01" * _LENGTH
    return _BODY


def _padding(data: bytes) -> bytes:
    return _pad_block(_unpad_block(data))


def _padded(value: dict[str, Any]) -> bytes:
    return _pad_block(canonical_json(value))


DECODERS = (
    Decoder(
        "envelope",
        _envelope,
        [bytes.fromhex(_ENVELOPE["wrapped"])],
        share=0.1,
    ),
    Decoder("envelope-from-shares", _envelope_from_shares, [bytes.fromhex(_SHARED["wrapped"])], share=0.1),
    Decoder("header", _header, [bytes.fromhex(_HEADER["ciphertext"])]),
    Decoder("header-inside", _header_inside, [_padded(_HEADER["header"]), _padded({})]),
    Decoder("block-padding", _padding, [_pad_block(b"{}"), _pad_block(bytes(255))]),
    Decoder(
        "stream",
        _stream,
        [b"".join(stream.encrypt_chunks(_KEY, _DIGEST, [bytes(size)])) for size in (0, 1, 1_000)],
    ),
    Decoder("stream-chunk", _chunk, [_whole_chunk()]),
    Decoder("body", _body, [_BODY]),
    Decoder("body-inside", _body_inside, [b"\x01" * _LENGTH + bytes(len(_BODY) - 16 - _LENGTH)]),
    Decoder("body-chunk", _chunk_of_body, [_BODY]),
)
