"""Wycheproof through the project's own doors. What comes out other than the vector says stands in a list, with why.

All that the project does with these primitives goes through `shared.crypto`, so that a vector which is refused there
is refused everywhere.
"""

from __future__ import annotations

import pytest
import umbral

from shared.crypto import aead
from shared.crypto.derivation import hkdf
from shared.crypto.errors import BadSignature, DecryptionFailed, MalformedKeyMaterial
from shared.crypto.signing import VerifyKey
from shared.crypto.umbral import KeyFrag
from shared.crypto.wireform import ORDER
from tests.fuzz.vectors import inputs
from tests.wycheproof.vectors import Vector, load, named

ED25519 = load("ed25519")
XCHACHA = load("xchacha20_poly1305")
HKDF = load("hkdf_sha256")
ECDSA = load("ecdsa_secp256k1_sha256_p1363")

WEAK_KEY = {"SmallOrderPublicKey", "MixedOrderPublicKey"}
"""Keys outside the prime-order group: one signature under them may hold for several messages. Wycheproof leaves it open
whether a library takes them; `VerifyKey` does not."""


def of(vectors: list[Vector]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=named)


def test_all_vectors_are_there() -> None:
    assert [len(each) for each in (ED25519, XCHACHA, HKDF, ECDSA)] == [210, 315, 86, 252]


# --- Ed25519 ----------------------------------------------------------------------------------------------------------


def verifies(vector: Vector) -> bool:
    try:
        key = VerifyKey.from_bytes(bytes.fromhex(vector["key"]))
        key.verify(bytes.fromhex(vector["signature"]), bytes.fromhex(vector["message"]))
    except (BadSignature, MalformedKeyMaterial):
        return False
    return True


@of(ED25519)
def test_ed25519(vector: Vector) -> None:
    weak = not WEAK_KEY.isdisjoint(vector["flags"].split())
    assert verifies(vector) == (vector["result"] == "valid" and not weak)


@of([vector for vector in ED25519 if not WEAK_KEY.isdisjoint(vector["flags"].split())])
def test_an_ed25519_key_outside_the_group_is_no_key(vector: Vector) -> None:
    with pytest.raises(MalformedKeyMaterial):
        VerifyKey.from_bytes(bytes.fromhex(vector["key"]))


# --- XChaCha20-Poly1305 -----------------------------------------------------------------------------------------------


@of([vector for vector in XCHACHA if vector["flags"] != "InvalidNonceSize"])
def test_xchacha20_poly1305(vector: Vector) -> None:
    key, nonce, aad, message, ciphertext, tag = (
        bytes.fromhex(vector[name]) for name in ("key", "nonce", "aad", "message", "ciphertext", "tag")
    )
    if vector["result"] == "invalid":
        with pytest.raises(DecryptionFailed):
            aead.decrypt(key, nonce + ciphertext + tag, aad)
        return
    assert aead.decrypt(key, nonce + ciphertext + tag, aad) == message
    assert aead.encrypt_with_nonce(key, nonce, message, aad) == ciphertext + tag


@of([vector for vector in XCHACHA if vector["flags"] == "InvalidNonceSize"])
def test_a_nonce_of_another_size_opens_nothing(vector: Vector) -> None:
    """The nonce is the first 24 bytes of what is opened, whatever they are: no door takes one of another size."""
    sealed = b"".join(bytes.fromhex(vector[name]) for name in ("nonce", "ciphertext", "tag"))
    with pytest.raises(DecryptionFailed):
        aead.decrypt(bytes.fromhex(vector["key"]), sealed, bytes.fromhex(vector["aad"]))


# --- HKDF-SHA256 ------------------------------------------------------------------------------------------------------


@of([vector for vector in HKDF if not vector["salt"] and vector["result"] == "valid"])
def test_hkdf_sha256(vector: Vector) -> None:
    output = hkdf(bytes.fromhex(vector["key"]), bytes.fromhex(vector["info"]), vector["size"])
    assert output.hex() == vector["output"]


@of([vector for vector in HKDF if vector["result"] == "invalid"])
def test_hkdf_sha256_gives_no_more_than_it_can(vector: Vector) -> None:
    """RFC 5869 section 2.3: at most 255 blocks. That the vector has a salt does not matter."""
    with pytest.raises(ValueError, match="8160"):
        hkdf(bytes.fromhex(vector["key"]), bytes.fromhex(vector["info"]), vector["size"])


def test_hkdf_sha256_with_a_salt_has_no_door() -> None:
    """The protocol uses no salt (docs/spec.md section 3), and `hkdf` takes none: these are all that is left out."""
    assert sum(bool(vector["salt"]) and vector["result"] == "valid" for vector in HKDF) == 60


# --- ECDSA on secp256k1 -----------------------------------------------------------------------------------------------
#
# No door verifies ECDSA over a message: the project signs with Ed25519, and the signatures inside kfrags and cfrags are
# over what Umbral makes of them. What can be reached is their form, which `shared.crypto.wireform` checks before an
# engine sees it, and the function of pyUmbral's that its engine has these signatures checked by.


def halves(vector: Vector) -> tuple[int, int] | None:
    """r and s, where the signature has the right length."""
    signature = bytes.fromhex(vector["signature"])
    return (
        (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")) if len(signature) == 64 else None
    )


@of(ECDSA)
@pytest.mark.parametrize("start", [130, 194], ids=["for-the-proxy", "for-the-receiver"])
def test_the_form_of_an_ecdsa_signature_in_a_kfrag(vector: Vector, start: int) -> None:
    """In range, as long as it has to be, and of the two that verify the one with the lower s."""
    kfrag = inputs("kfrag")[0]
    changed = kfrag[:start] + bytes.fromhex(vector["signature"]) + kfrag[start + 64 :]
    found = halves(vector)
    if found is not None and 1 <= found[0] < ORDER and 1 <= found[1] <= ORDER // 2:
        assert bytes(KeyFrag.from_bytes(changed)) == changed
    else:
        with pytest.raises(MalformedKeyMaterial):
            KeyFrag.from_bytes(changed)


@of([vector for vector in ECDSA if vector["flags"] in ("RangeCheck", "IntegerOverflow")])
def test_an_ecdsa_signature_out_of_range_is_no_part_of_a_kfrag(vector: Vector) -> None:
    kfrag = inputs("kfrag")[0]
    with pytest.raises(MalformedKeyMaterial):
        KeyFrag.from_bytes(kfrag[:130] + bytes.fromhex(vector["signature"]) + kfrag[194:])


@of(ECDSA)
def test_ecdsa_as_pyumbral_verifies_it(vector: Vector) -> None:
    point = bytes.fromhex(vector["key"])
    key = umbral.PublicKey.from_bytes(bytes([2 + point[-1] % 2]) + point[1:33])
    try:
        signature = umbral.Signature.from_bytes(bytes.fromhex(vector["signature"]))
        valid = signature.verify(key, bytes.fromhex(vector["message"]))
    except Exception:
        valid = False
    assert valid == (vector["result"] == "valid")
