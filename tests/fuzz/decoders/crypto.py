"""Keys, signatures, ciphertexts, and Umbral's objects under each of its implementations."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

from client.envelopes import WRAPPED_SIZE, Envelope, OpeningKeys, open_envelope
from services.proxy import worker
from shared.crypto import aead, umbral
from shared.crypto.derivation import Seed
from shared.crypto.engines import ENGINE_NAMES, load_engine, use_engine
from shared.crypto.errors import EngineUnavailable
from shared.crypto.sealing import SealingKey, SealingPublicKey, seal
from shared.crypto.signing import SigningKey, VerifyKey
from tests.fuzz.decoder import Decoder
from tests.fuzz.vectors import accepted, inputs

_AEAD = accepted("aead")[0]
_BOX = accepted("sealed")[0]
_SIGNATURE = accepted("signature")[0]
_KFRAG = accepted("kfrag_verify")[0]
_CFRAG = accepted("cfrag_verify")[0]
_FOR_RECEIVER = 194
"""Where in a kfrag the signature for the receiver begins, which ends before the two flags."""
_OPENING = accepted("decrypt_original")[0]
_SHARED = accepted("decrypt_reencrypted")[0]


def _bytes(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector[name])


def _keys(vector: dict[str, Any]) -> tuple[umbral.PublicKey, umbral.PublicKey, umbral.PublicKey]:
    verifying, delegating, receiving = (
        umbral.PublicKey.from_bytes(_bytes(vector, f"{name}_key")) for name in ("verifying", "delegating", "receiving")
    )
    return verifying, delegating, receiving


# --- libsodium --------------------------------------------------------------------------------------------------------


def _verify_key(data: bytes) -> bytes:
    return bytes(VerifyKey.from_bytes(data))


def _signature(data: bytes) -> bytes:
    """What verifies is the signature that the key would make: Ed25519 is deterministic and here not malleable."""
    VerifyKey.from_bytes(_bytes(_SIGNATURE, "public_key")).verify(data, _bytes(_SIGNATURE, "message"))
    return _bytes(_SIGNATURE, "signature")


def _sealing_key(data: bytes) -> bytes:
    key = SealingPublicKey.from_bytes(data)
    seal(key, b"a share")
    return bytes(key)


def _sealed_box(data: bytes) -> None:
    SealingKey.from_bytes(_bytes(_BOX, "private_key")).open(data)


def _message(data: bytes) -> bytes:
    assert aead.decrypt(_bytes(_AEAD, "key"), data, _bytes(_AEAD, "aad")) == _bytes(_AEAD, "plaintext")
    return _bytes(_AEAD, "ciphertext")


def _private_keys(data: bytes) -> bytes:
    SigningKey.from_bytes(data).sign(b"")
    SealingKey.from_bytes(data)
    return Seed.from_bytes(data).reveal()


# --- Umbral -----------------------------------------------------------------------------------------------------------


def _public_key(data: bytes) -> bytes:
    return bytes(umbral.PublicKey.from_bytes(data))


def _encrypt_to(data: bytes) -> None:
    umbral.encrypt(umbral.PublicKey.from_bytes(data), b"")


def _capsule(data: bytes) -> bytes:
    return bytes(umbral.Capsule.from_bytes(data))


def _kfrag(data: bytes) -> bytes:
    return bytes(umbral.KeyFrag.from_bytes(data))


def _kfrag_verified(data: bytes) -> bytes:
    """Umbral lets a proxy check one of the two signatures; all but the other one must be what the patient made."""
    umbral.KeyFrag.from_bytes(data).verify(*_keys(_KFRAG))
    made = next((each for each in inputs("kfrag_verify") if each[:_FOR_RECEIVER] == data[:_FOR_RECEIVER]), b"")
    return made[:_FOR_RECEIVER] + data[_FOR_RECEIVER:-2] + made[-2:]


def _kfrag_accepted(data: bytes) -> bytes:
    """As a proxy takes in a share."""
    key = _bytes(_KFRAG, "delegating_key")
    worker.accept_shares([(data, key)], _bytes(_KFRAG, "verifying_key"), _bytes(_KFRAG, "receiving_key"))
    return _bytes(_KFRAG, "data")


def _cfrag(data: bytes) -> bytes:
    return bytes(umbral.CapsuleFrag.from_bytes(data))


def _cfrag_verified(data: bytes) -> bytes:
    capsule = umbral.Capsule.from_bytes(_bytes(_CFRAG, "capsule"))
    umbral.CapsuleFrag.from_bytes(data).verify(capsule, *_keys(_CFRAG))
    return _bytes(_CFRAG, "data")


def _reencrypted(data: bytes) -> None:
    """As a proxy takes in a capsule."""
    worker.reencrypt_batch(_bytes(_KFRAG, "data"), [data])


def _opened(data: bytes) -> bytes:
    """Capsule and ciphertext, as they stand together in what is sealed to a party."""
    key = Seed.from_bytes(_bytes(_OPENING, "seed")).umbral_key(_OPENING["label"])
    capsule, ciphertext = data[: umbral.CAPSULE_SIZE], data[umbral.CAPSULE_SIZE :]
    umbral.decrypt_original(key, umbral.Capsule.from_bytes(capsule), ciphertext)
    return _bytes(_OPENING, "capsule") + _bytes(_OPENING, "ciphertext")


def _opened_from_shares(data: bytes) -> None:
    """Cfrags whose proofs have been checked, combined by the recipient."""
    key = Seed.from_bytes(_bytes(_SHARED, "seed")).umbral_key(_SHARED["label"])
    size = umbral.CFRAG_SIZE
    cfrags = [umbral.VerifiedCapsuleFrag.from_verified_bytes(data[at : at + size]) for at in range(0, len(data), size)]
    umbral.decrypt_reencrypted(
        key,
        umbral.PublicKey.from_bytes(_bytes(_SHARED, "delegating_key")),
        umbral.Capsule.from_bytes(_bytes(_SHARED, "capsule")),
        cfrags,
        _bytes(_SHARED, "ciphertext"),
    )


def _share_at_rest(data: bytes) -> bytes:
    return bytes(umbral.VerifiedKeyFrag.from_verified_bytes(data))


def _envelope_frame(data: bytes) -> None:
    """An envelope on its way to the worker that opens it."""
    envelope = Envelope.read(BytesIO(data))
    if envelope is not None:
        key = Seed.from_bytes(_bytes(_SHARED, "seed")).umbral_key(_SHARED["label"])
        open_envelope(OpeningKeys(2, _bytes(_SHARED, "verifying_key"), key), envelope)


def _envelope() -> bytes:
    """Its re-encryptions hold; the ciphertext, made longer to fit, does not open."""
    wrapped = _bytes(_SHARED, "ciphertext").ljust(WRAPPED_SIZE, b"\0")
    cfrags = tuple(bytes.fromhex(cfrag) for cfrag in _SHARED["cfrags"])
    return Envelope(_bytes(_SHARED, "capsule"), _bytes(_SHARED, "delegating_key"), wrapped, cfrags).frame()


# A use, samples, and its share of executions: the arithmetic takes a millisecond, in Python several.
_UMBRAL: tuple[tuple[str, Callable[[bytes], bytes | None], list[bytes], float], ...] = (
    ("public-key", _public_key, inputs("public_key"), 0.5),
    ("public-key-encrypted-to", _encrypt_to, inputs("public_key"), 0.05),
    ("capsule", _capsule, inputs("capsule"), 0.2),
    ("capsule-reencrypted", _reencrypted, inputs("capsule"), 0.05),
    ("kfrag", _kfrag, inputs("kfrag"), 0.2),
    ("kfrag-verified", _kfrag_verified, inputs("kfrag_verify"), 0.05),
    ("kfrag-accepted", _kfrag_accepted, inputs("kfrag_accept"), 0.05),
    ("kfrag-at-rest", _share_at_rest, inputs("kfrag"), 0.2),
    ("cfrag", _cfrag, inputs("cfrag"), 0.1),
    ("cfrag-verified", _cfrag_verified, inputs("cfrag_verify"), 0.05),
    ("envelope-frame", _envelope_frame, [_envelope()], 0.05),
    ("opened-original", _opened, [_bytes(_OPENING, "capsule") + _bytes(_OPENING, "ciphertext")], 0.05),
    ("opened-from-shares", _opened_from_shares, [bytes.fromhex("".join(_SHARED["cfrags"]))], 0.05),
)


def _under(engine: str, use: Callable[[bytes], bytes | None]) -> Callable[[bytes], bytes | None]:
    def run(data: bytes) -> bytes | None:
        with use_engine(engine):
            return use(data)

    return run


def _installed() -> list[str]:
    names = []
    for name in ENGINE_NAMES:
        try:
            load_engine(name)
        except EngineUnavailable:
            continue
        names.append(name)
    return names


DECODERS = (
    Decoder("verify-key", _verify_key, inputs("verify_key")),
    Decoder("signature", _signature, [_bytes(_SIGNATURE, "signature")]),
    Decoder("sealing-key", _sealing_key, inputs("sealing_key"), share=0.3),
    Decoder("sealed-box", _sealed_box, [_bytes(_BOX, "ciphertext")], share=0.3),
    Decoder("aead", _message, [_bytes(_AEAD, "ciphertext")]),
    Decoder(
        "private-keys",
        _private_keys,
        [bytes(range(32))],
        share=0.3,
    ),
    *(
        Decoder(f"{name}.{engine}", _under(engine, use), samples, share=share)
        for engine in _installed()
        for name, use, samples, share in _UMBRAL
    ),
)
