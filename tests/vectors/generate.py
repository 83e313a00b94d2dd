"""Write the vectors next to this file: `python -m tests.vectors.generate`.

The committed JSON files are the truth, and `test_vectors.py` reads nothing else. What this program makes is the same at
every run as far as the algorithms allow; Umbral, sealed boxes and random nonces draw fresh randomness, so running it
again gives other bytes that mean the same. Run it only to add a vector, and look at the difference.

Every vector has an `id`, a `kind` (which decides its other members), and `expect`: "ok", or the code of the one error
it must give. A refused vector differs from an accepted one in exactly one point. Byte strings are in hexadecimal,
except `blobs`, which are long and in base64; a `stream` or `body` vector names slices of them.

Both implementations of Umbral must be installed.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import umbral as pyumbral
import umbral_pre
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt
from umbral.curve_point import CurvePoint
from umbral.curve_scalar import CurveScalar
from umbral.hashing import hash_capsule_points

from shared.crypto import aead, stream, umbral
from shared.crypto.derivation import LABEL_PREFIX, Seed, hkdf
from shared.crypto.engines import load_engine, use_engine
from shared.crypto.padding import padme
from shared.crypto.record import RecordContext, RecordKey
from shared.crypto.sealing import SealingKey, seal
from shared.crypto.signing import SigningKey
from shared.crypto.wireform import FIELD_PRIME, ORDER
from shared.did import did_from_key
from shared.encoding import b64url, canonical_json
from tests.vectors import log

HERE = Path(__file__).parent
PATIENT, RECIPIENT, STRANGER = (Seed.from_bytes(bytes([fill]) * 32) for fill in (0x11, 0x22, 0x33))
SCOPE = "scope/mental-health/0"
MALFORMED = "malformed_key_material"

Vector = dict[str, Any]


def be(number: int) -> bytes:
    return number.to_bytes(32, "big")


def put(data: bytes, at: int, new: bytes) -> bytes:
    """`data` with the bytes from `at` on replaced by `new`."""
    return data[:at] + new + data[at + len(new) :]


def flip(data: bytes, at: int) -> bytes:
    return put(data, at, bytes([data[at] ^ 1]))


def high_s(data: bytes, at: int) -> bytes:
    """`data` with the s at `at` replaced by n - s, under which an ECDSA signature verifies as well."""
    return put(data, at, be(ORDER - int.from_bytes(data[at : at + 32], "big")))


def off_curve() -> bytes:
    """A compressed point whose x-coordinate, 5, is of no point of secp256k1."""
    return b"\x02" + be(5)


class World:
    """A patient, a recipient, a record and a grant; what vectors are cut from."""

    def __init__(self) -> None:
        self.delegating_sk = PATIENT.umbral_key(SCOPE)
        self.receiving_sk = RECIPIENT.umbral_key("receiving/0")
        self.signer = umbral.KfragSigner(PATIENT.umbral_key("signer/0"))
        self.delegating = self.delegating_sk.public_key()
        self.receiving = self.receiving_sk.public_key()
        self.verifying = self.signer.verifying_key()
        self.other = STRANGER.umbral_key("other").public_key()
        self.context = RecordContext(
            patient=did_from_key(bytes(SigningKey(PATIENT.derive("identity/0", 32)).verify_key)),
            record="01890a5d-ac96-774b-bcce-b302099a8057",
            version=1,
            scope=b64url(PATIENT.derive("scope-id/mental-health", 16)),
            epoch=0,
            author=did_from_key(bytes(SigningKey(RECIPIENT.derive("identity/0", 32)).verify_key)),
        )
        self.cek = PATIENT.derive("vector-cek", 32)
        self.key = RecordKey(self.cek)
        self.capsule, self.wrapped = self.key.wrap(self.delegating, self.context)
        self.capsule2, self.wrapped2 = RecordKey(PATIENT.derive("vector-cek-2", 32)).wrap(self.delegating, self.context)
        self.kfrags = self.make_kfrags()
        self.cfrags = [bytes(umbral.reencrypt(self.capsule, kfrag)) for kfrag in self.kfrags]

    def make_kfrags(self) -> list[umbral.VerifiedKeyFrag]:
        return umbral.generate_kfrags(self.delegating_sk, self.receiving, self.signer, 2, 3)

    @property
    def keys(self) -> dict[str, str]:
        return {
            "verifying_key": bytes(self.verifying).hex(),
            "delegating_key": bytes(self.delegating).hex(),
            "receiving_key": bytes(self.receiving).hex(),
        }

    @property
    def context_members(self) -> dict[str, Any]:
        return {name: getattr(self.context, name) for name in RecordContext.__dataclass_fields__}


def parsing(world: World) -> list[Vector]:
    key, capsule = bytes(world.delegating), bytes(world.capsule)
    kfrag, cfrag = bytes(world.kfrags[0]), world.cfrags[0]
    x, y = CurvePoint.from_bytes(key).to_affine()
    made: list[Vector] = []

    def add(kind: str, name: str, data: bytes, expect: str = MALFORMED) -> None:
        made.append({"id": f"{kind}-{name}", "kind": kind, "data": data.hex(), "expect": expect})

    for kind, good in (("public_key", key), ("capsule", capsule), ("kfrag", kfrag), ("cfrag", cfrag)):
        add(kind, "good", good, "ok")
        add(kind, "trailing-byte", good + b"\x00")
        add(kind, "one-byte-short", good[:-1])
        add(kind, "empty", b"")
    add("public_key", "uncompressed", b"\x04" + be(x) + be(y))
    add("public_key", "hybrid-prefix", b"\x06" + key[1:])
    add("public_key", "infinity-one-byte", b"\x00")
    add("public_key", "infinity-padded", bytes(33))
    add("public_key", "x-not-on-curve", off_curve())
    # x = 1 is on the curve, and p + 1 is another spelling of it.
    add("public_key", "x-not-reduced", b"\x02" + be(FIELD_PRIME + 1))

    verified = umbral_pre.Capsule.from_bytes(
        b"\x93\xc4\x21" + capsule[:33] + b"\xc4\x21" + capsule[33:66] + b"\xc4\x20" + capsule[66:]
    )
    add("capsule", "messagepack-form", bytes(verified))
    add("capsule", "point-at-infinity", put(capsule, 0, bytes(33)))
    add("capsule", "point-not-on-curve", put(capsule, 33, off_curve()))
    add("capsule", "scalar-zero", put(capsule, 66, be(0)))
    add("capsule", "scalar-is-order", put(capsule, 66, be(ORDER)))
    add("capsule", "scalar-largest", put(capsule, 66, be(2**256 - 1)))
    add("capsule", "tampered-proof", flip(capsule, 97))
    add("capsule", "points-exchanged", capsule[33:66] + capsule[:33] + capsule[66:])
    add("capsule", "points-cancel", cancelling_capsule())

    rust = load_engine("umbral-pre")
    add("kfrag", "messagepack-form", bytes(rust.decode_kfrag(kfrag)))
    add("kfrag", "key-zero", put(kfrag, 32, be(0)))
    add("kfrag", "key-is-order", put(kfrag, 32, be(ORDER)))
    add("kfrag", "precursor-at-infinity", put(kfrag, 64, bytes(33)))
    add("kfrag", "precursor-not-on-curve", put(kfrag, 64, off_curve()))
    add("kfrag", "commitment-not-on-curve", put(kfrag, 97, off_curve()))
    for who, at in (("proxy", 130), ("receiver", 194)):
        add("kfrag", f"{who}-signature-high-s", high_s(kfrag, at + 32))
        add("kfrag", f"{who}-signature-r-zero", put(kfrag, at, be(0)))
        add("kfrag", f"{who}-signature-r-is-order", put(kfrag, at, be(ORDER)))
        add("kfrag", f"{who}-signature-s-zero", put(kfrag, at + 32, be(0)))
    add("kfrag", "delegating-flag-two", put(kfrag, 258, b"\x02"))
    add("kfrag", "receiving-flag-255", put(kfrag, 259, b"\xff"))

    add("cfrag", "messagepack-form", bytes(rust.decode_cfrag(cfrag)))
    for name, at in (
        ("e1", 0),
        ("v1", 33),
        ("precursor", 98),
        ("e2", 131),
        ("v2", 164),
        ("commitment", 197),
        ("pok", 230),
    ):
        add("cfrag", f"{name}-not-on-curve", put(cfrag, at, off_curve()))
    add("cfrag", "e1-at-infinity", put(cfrag, 0, bytes(33)))
    add("cfrag", "proof-zero", put(cfrag, 263, be(0)))
    add("cfrag", "proof-is-order", put(cfrag, 263, be(ORDER)))
    add("cfrag", "signature-high-s", high_s(cfrag, 327))
    add("cfrag", "signature-r-zero", put(cfrag, 295, be(0)))
    add("cfrag", "signature-s-zero", put(cfrag, 327, be(0)))
    return made


def cancelling_capsule() -> bytes:
    """A capsule with V = -E and a valid proof: its key is that of the point at infinity, which everybody knows."""
    r = CurveScalar.random_nonzero()
    e = CurvePoint.generator() * r
    v = -e
    s = (r * hash_capsule_points(e, v)) - r
    return bytes(e) + bytes(v) + bytes(s)


def shares(world: World) -> list[Vector]:
    kfrag, other = bytes(world.kfrags[0]), bytes(world.kfrags[1])
    made: list[Vector] = []

    def add(kind: str, name: str, expect: str, data: bytes = kfrag, **changed: str) -> None:
        made.append(
            {"id": f"{kind}-{name}", "kind": kind, "data": data.hex(), **world.keys, **changed, "expect": expect}
        )

    stranger = bytes(world.other).hex()
    for kind in ("kfrag_verify", "kfrag_accept"):
        add(kind, "good", "ok")
        add(kind, "wrong-verifying-key", "kfrag_rejected", verifying_key=stranger)
        add(kind, "wrong-delegating-key", "kfrag_rejected", delegating_key=stranger)
        add(kind, "wrong-receiving-key", "kfrag_rejected", receiving_key=stranger)
        add(kind, "other-id", "kfrag_rejected", put(kfrag, 0, other[:32]))
        add(kind, "other-key", "kfrag_rejected", put(kfrag, 32, other[32:64]))
        add(kind, "other-commitment", "kfrag_rejected", put(kfrag, 97, other[97:130]))
        add(kind, "wrong-signature-for-proxy", "kfrag_rejected", put(kfrag, 130, other[130:194]))
        add(kind, "flags-cleared", "kfrag_rejected", put(kfrag, 258, b"\x00\x00"))
        for name, signed in (
            ("nothing-signed", (False, False)),
            ("delegating-only", (True, False)),
            ("receiving-only", (False, True)),
        ):
            add(kind, name, "kfrag_rejected", partly_signed(*signed))
    # The two vectors that say why `accept_kfrag` exists.
    wrong = put(kfrag, 194, other[194:258])
    add("kfrag_verify", "wrong-signature-for-receiver-goes-unnoticed", "ok", wrong)
    add("kfrag_accept", "wrong-signature-for-receiver", "kfrag_rejected", wrong)
    return made


def partly_signed(delegating: bool, receiving: bool) -> bytes:
    """An honest kfrag whose signature for the proxy leaves keys out, as Umbral allows and this project does not."""
    python = load_engine("umbral")
    secret = PATIENT.umbral_key(SCOPE)._on(python)
    signer = pyumbral.Signer(PATIENT.umbral_key("signer/0")._on(python))
    receiver = RECIPIENT.umbral_key("receiving/0").public_key()._on(python)
    return bytes(pyumbral.generate_kfrags(secret, receiver, signer, 2, 3, delegating, receiving)[0])


def fragments(world: World) -> list[Vector]:
    cfrag, other = world.cfrags[0], world.cfrags[1]
    made: list[Vector] = []

    def add(name: str, expect: str, data: bytes = cfrag, **changed: str) -> None:
        inputs = {"data": data.hex(), "capsule": bytes(world.capsule).hex(), **world.keys, **changed}
        made.append({"id": f"cfrag_verify-{name}", "kind": "cfrag_verify", **inputs, "expect": expect})

    stranger = bytes(world.other).hex()
    rejected = "cfrag_rejected"
    add("good", "ok")
    add("another-capsule", rejected, capsule=bytes(world.capsule2).hex())
    add("wrong-verifying-key", rejected, verifying_key=stranger)
    add("wrong-delegating-key", rejected, delegating_key=stranger)
    add("wrong-receiving-key", rejected, receiving_key=stranger)
    add("other-e1", rejected, put(cfrag, 0, other[:33]))
    add("other-v1", rejected, put(cfrag, 33, other[33:66]))
    add("other-id", rejected, put(cfrag, 66, other[66:98]))
    add("other-precursor", rejected, put(cfrag, 98, bytes(world.other)))
    add("other-proof", rejected, put(cfrag, 263, other[263:295]))
    add("other-kfrag-signature", rejected, put(cfrag, 295, other[295:]))
    add("tampered-capsule", MALFORMED, capsule=flip(bytes(world.capsule), 97).hex())
    return made


def thresholds() -> list[Vector]:
    cases = [(1, 1), (1, 64), (64, 64), (2, 3), (0, 3), (-1, 3), (4, 3), (1, 0), (0, 0), (1, 65), (65, 65)]
    return [
        {
            "id": f"threshold-{t}-of-{n}",
            "kind": "generate_kfrags",
            "threshold": t,
            "shares": n,
            "expect": "ok" if 1 <= t <= n <= 64 else "invalid_threshold",
        }
        for t, n in cases
    ]


def opening(world: World) -> list[Vector]:
    made: list[Vector] = []
    plaintext = b"a plaintext of thirty-one bytes"
    capsule, ciphertext = umbral.encrypt(world.delegating, plaintext)
    capsule2, ciphertext2 = umbral.encrypt(world.delegating, plaintext)
    patient = {"seed": PATIENT.reveal().hex(), "label": SCOPE}
    recipient = {"seed": RECIPIENT.reveal().hex(), "label": "receiving/0"}

    def original(name: str, expect: str, **changed: Any) -> None:
        inputs = {**patient, "capsule": bytes(capsule).hex(), "ciphertext": ciphertext.hex(), **changed}
        extra = {"plaintext": plaintext.hex()} if expect == "ok" else {}
        made.append({"id": f"decrypt_original-{name}", "kind": "decrypt_original", **inputs, **extra, "expect": expect})

    failed = "decryption_failed"
    original("good", "ok")
    original("another-key", failed, label="scope/mental-health/1")
    original("tampered-ciphertext", failed, ciphertext=flip(ciphertext, 30).hex())
    original("tampered-nonce", failed, ciphertext=flip(ciphertext, 0).hex())
    original("trailing-byte", failed, ciphertext=(ciphertext + b"\x00").hex())
    original("shorter-than-nonce", failed, ciphertext=ciphertext[:23].hex())
    original("empty", failed, ciphertext="")
    original("swapped-ciphertext", failed, ciphertext=ciphertext2.hex())
    original("swapped-capsule", failed, capsule=bytes(capsule2).hex())

    def reencrypted(name: str, expect: str, cfrags: list[bytes], **changed: Any) -> None:
        inputs = {
            **recipient,
            "delegating_key": world.keys["delegating_key"],
            "verifying_key": world.keys["verifying_key"],
            "capsule": bytes(capsule).hex(),
            "ciphertext": ciphertext.hex(),
            "cfrags": [cfrag.hex() for cfrag in cfrags],
            **changed,
        }
        extra = {"plaintext": plaintext.hex()} if expect == "ok" else {}
        made.append(
            {"id": f"decrypt_reencrypted-{name}", "kind": "decrypt_reencrypted", **inputs, **extra, "expect": expect}
        )

    first, second, third = (bytes(umbral.reencrypt(capsule, kfrag)) for kfrag in world.kfrags)
    again = bytes(umbral.reencrypt(capsule, world.kfrags[0]))
    foreign = bytes(umbral.reencrypt(capsule, world.make_kfrags()[1]))
    apart = "shares_do_not_combine"
    reencrypted("first-two", "ok", [first, second])
    reencrypted("last-two-reversed", "ok", [third, second])
    reencrypted("all-three", "ok", [first, second, third])
    reencrypted("none", apart, [])
    reencrypted("too-few", apart, [first])
    reencrypted("same-twice", apart, [first, first])
    reencrypted("same-share-twice", apart, [first, again])
    reencrypted("enough-and-one-twice", apart, [first, second, again])
    reencrypted("two-sets", apart, [first, foreign])
    reencrypted("another-receiving-key", apart, [first, second], label="receiving/1", unchecked=True)
    reencrypted("tampered-ciphertext", failed, [first, second], ciphertext=flip(ciphertext, 40).hex())
    reencrypted("swapped-ciphertext", failed, [first, second], ciphertext=ciphertext2.hex())
    reencrypted("cfrag-tampered", "cfrag_rejected", [first, flip(second, 290)])
    return made


def envelopes(world: World) -> list[Vector]:
    made: list[Vector] = []
    patient = {"seed": PATIENT.reveal().hex(), "label": SCOPE}

    def add(name: str, expect: str, **changed: Any) -> None:
        inputs = {
            **patient,
            "capsule": bytes(world.capsule).hex(),
            "wrapped": world.wrapped.hex(),
            "context": world.context_members,
            "commitment": world.key.commitment.hex(),
            **changed,
        }
        made.append({"id": f"unwrap_original-{name}", "kind": "unwrap_original", **inputs, "expect": expect})

    def with_member(name: str, value: Any) -> dict[str, Any]:
        return {**world.context_members, name: value}

    add("good", "ok")
    elsewhere = {
        "patient": world.context.author,
        "record": "01890a5d-ac96-774b-bcce-b302099a8058",
        "version": 2,
        "scope": b64url(PATIENT.derive("scope-id/allergies", 16)),
        "epoch": 1,
        "author": world.context.patient,
    }
    for member, value in elsewhere.items():
        add(f"another-{member}", "context_mismatch", context=with_member(member, value))
    add("negative-version", "malformed", context=with_member("version", -1))
    add("epoch-beyond-json", "malformed", context=with_member("epoch", 2**53))
    add("version-as-text", "malformed", context=with_member("version", "1"))
    add("swapped-envelope-capsule", "decryption_failed", capsule=bytes(world.capsule2).hex())
    add("swapped-envelope-wrapped", "decryption_failed", wrapped=world.wrapped2.hex())
    add(
        "whole-envelope-of-another-key",
        "commitment_mismatch",
        capsule=bytes(world.capsule2).hex(),
        wrapped=world.wrapped2.hex(),
    )
    add("wrapped-trailing-byte", MALFORMED, wrapped=(world.wrapped + b"\x00").hex())
    add("wrapped-one-byte-short", MALFORMED, wrapped=world.wrapped[:-1].hex())
    add("wrong-commitment", "commitment_mismatch", commitment=flip(world.key.commitment, 31).hex())
    add("commitment-one-byte-short", "commitment_mismatch", commitment=world.key.commitment[:-1].hex())

    for name, expect, context in (
        ("good", "ok", world.context_members),
        ("another-author", "context_mismatch", with_member("author", world.context.patient)),
    ):
        made.append(
            {
                "id": f"unwrap_reencrypted-{name}",
                "kind": "unwrap_reencrypted",
                "seed": RECIPIENT.reveal().hex(),
                "label": "receiving/0",
                "delegating_key": world.keys["delegating_key"],
                "verifying_key": world.keys["verifying_key"],
                "capsule": bytes(world.capsule).hex(),
                "wrapped": world.wrapped.hex(),
                "cfrags": [cfrag.hex() for cfrag in world.cfrags[1:]],
                "context": context,
                "commitment": world.key.commitment.hex(),
                "expect": expect,
            }
        )
    made.append(
        {
            "id": "context_digest-good",
            "kind": "context_digest",
            "context": world.context_members,
            "digest": world.context.digest().hex(),
            "expect": "ok",
        }
    )
    return made


def headers(world: World) -> list[Vector]:
    made: list[Vector] = []
    header = {"mediaType": "application/fhir+json", "resourceType": "Observation", "title": "Blutdruck, morgens"}
    good = world.key.encrypt_header(header, world.context)
    key = hkdf(world.cek, LABEL_PREFIX + b"header", 32)
    digest = world.context.digest()

    def add(name: str, expect: str, ciphertext: bytes = good, **changed: Any) -> None:
        inputs = {"cek": world.cek.hex(), "context": world.context_members, "ciphertext": ciphertext.hex(), **changed}
        extra = {"header": header} if expect == "ok" else {}
        made.append({"id": f"header-{name}", "kind": "header", **inputs, **extra, "expect": expect})

    def written(plaintext: bytes) -> bytes:
        return aead.encrypt(key, plaintext, digest)

    def padded(plaintext: bytes) -> bytes:
        return plaintext + b"\x80" + bytes(-(len(plaintext) + 1) % 256)

    add("good", "ok")
    add("tampered", "decryption_failed", flip(good, 60))
    add("tampered-tag", "decryption_failed", flip(good, len(good) - 1))
    add("empty", "decryption_failed", b"")
    add("another-record-key", "decryption_failed", cek=bytes(32).hex())
    add("another-version", "decryption_failed", context={**world.context_members, "version": 2})
    add("too-large", "too_large", good + bytes(8192))
    add("no-padding-mark", "payload_corrupt", written(bytes(256)))
    add("padding-not-zero", "payload_corrupt", written(padded(canonical_json(header))[:-1] + b"\x01"))
    add("padding-of-two-blocks", "payload_corrupt", written(padded(canonical_json(header)) + bytes(256)))
    add("not-a-multiple-of-256", "payload_corrupt", written(canonical_json(header) + b"\x80"))
    add("not-an-object", "malformed", written(padded(b"[]")))
    add("not-canonical", "malformed", written(padded(b'{"a": 1}')))
    add("duplicate-member", "malformed", written(padded(b'{"a":1,"a":1}')))
    return made


def pattern(size: int) -> bytes:
    """Recognisable plaintext: the numbers 0, 1, 2 … as four bytes each."""
    return b"".join(number.to_bytes(4, "big") for number in range(-(-size // 4)))[:size]


def streams(world: World) -> tuple[dict[str, bytes], list[Vector]]:
    key, digest = PATIENT.derive("vector-stream", 32), world.context.digest()
    size, chunk = 2 * stream.CHUNK_SIZE + 100, stream.CIPHERTEXT_CHUNK_SIZE
    plaintext = pattern(size)
    whole = b"".join(stream.encrypt_chunks(key, digest, [plaintext]))
    early = b"".join(stream.encrypt_chunks(key, digest, [plaintext[: stream.CHUNK_SIZE]]))
    blobs = {"whole": whole, "early": early}
    end = len(whole)
    first, second, last = ["whole", 0, chunk], ["whole", chunk, 2 * chunk], ["whole", 2 * chunk, end]
    made: list[Vector] = []

    def hexed(data: bytes) -> list[Any]:
        return ["hex", data.hex()]

    def at(index: int, final: bool, text: bytes) -> bytes:
        flag = bytes([final])
        return crypto_aead_xchacha20poly1305_ietf_encrypt(
            text, digest + index.to_bytes(8, "big") + flag, index.to_bytes(23, "big") + flag, key
        )

    def add(name: str, expect: str, pieces: list[list[Any]], length: int | None = None, **changed: Any) -> None:
        inputs = {"key": key.hex(), "context_digest": digest.hex(), "pieces": pieces, **changed}
        extra = {} if length is None else {"pattern_length": length}
        made.append({"id": f"stream-{name}", "kind": "stream", **inputs, **extra, "expect": expect})

    truncated, corrupt = "payload_truncated", "payload_corrupt"
    add("three-chunks", "ok", [first, second, last], size)
    add(
        "three-chunks-in-other-pieces",
        "ok",
        [["whole", 0, 7], ["whole", 7, 7], ["whole", 7, chunk + 1], ["whole", chunk + 1, end]],
        size,
    )
    add("one-full-chunk", "ok", [["early", 0, chunk]], stream.CHUNK_SIZE)
    add("empty-payload", "ok", [hexed(at(0, True, b""))], 0)
    add("one-byte", "ok", [hexed(at(0, True, pattern(1)))], 1)
    add("nothing-at-all", truncated, [])
    add("cut-at-border-after-first", truncated, [first])
    add("missing-final-chunk", truncated, [first, second])
    add("cut-inside-a-tag", truncated, [first, second, ["whole", 2 * chunk, 2 * chunk + 15]])
    add("cut-inside-final-chunk", corrupt, [first, second, ["whole", 2 * chunk, end - 1]])
    add("missing-first-chunk", corrupt, [second, last])
    add("missing-middle-chunk", corrupt, [first, last])
    add("reordered", corrupt, [second, first, last])
    add("duplicated-chunk", corrupt, [first, first, second, last])
    add("final-flag-early", corrupt, [["early", 0, chunk], second, last])
    add("final-flag-missing", truncated, [hexed(at(0, False, pattern(100)))])
    add("trailing-byte", corrupt, [first, second, last, hexed(b"\x00")])
    add("trailing-chunk", corrupt, [["early", 0, chunk], last])
    add("extra-empty-final-chunk", corrupt, [first, hexed(at(1, True, b""))])
    add("short-inner-chunk", corrupt, [hexed(at(0, False, pattern(100)) + at(1, True, pattern(100)))])
    add("tampered-first-chunk", corrupt, [hexed(flip(whole[:1], 0)), ["whole", 1, end]])
    add("tampered-final-tag", corrupt, [["whole", 0, end - 1], hexed(flip(whole[-1:], 0))])
    add("another-key", corrupt, [first, second, last], key=bytes(32).hex())
    add("another-context", corrupt, [first, second, last], context_digest=bytes(32).hex())
    add("short-key", MALFORMED, [first, second, last], key=bytes(31).hex())

    def one(name: str, expect: str, index: int, final: bool, piece: list[Any]) -> None:
        inputs = {"key": key.hex(), "context_digest": digest.hex(), "index": index, "final": final, "pieces": [piece]}
        made.append({"id": f"stream_at-{name}", "kind": "stream_at", **inputs, "expect": expect})

    one("middle", "ok", 1, False, second)
    one("last", "ok", 2, True, last)
    one("another-index", corrupt, 0, False, second)
    one("inner-taken-for-last", truncated, 1, True, second)
    one("last-taken-for-inner", corrupt, 2, False, last)
    one("index-beyond-64-bits", corrupt, 2**64, True, last)
    return blobs, made


def bodies(world: World) -> list[Vector]:
    key, digest = hkdf(world.cek, LABEL_PREFIX + b"payload", 32), world.context.digest()
    body = pattern(300)
    good = b"".join(world.key.encrypt_body([body], len(body), world.context))
    made: list[Vector] = []

    def written(plaintext: bytes) -> bytes:
        return b"".join(stream.encrypt_chunks(key, digest, [plaintext]))

    def add(name: str, expect: str, ciphertext: bytes = good, length: int = 300, **changed: Any) -> None:
        inputs = {"cek": world.cek.hex(), "context": world.context_members, "length": length, **changed}
        pieces = [["hex", ciphertext.hex()]]
        made.append({"id": f"body-{name}", "kind": "body", **inputs, "pieces": pieces, "expect": expect})

    add("good", "ok")
    add("empty", "ok", written(bytes(256)), 0)
    add("one-byte", "ok", written(pattern(1) + bytes(255)), 1)
    add("padding-not-zero", "payload_corrupt", written(body + bytes(padme(300) - 301) + b"\x01"))
    add("padding-missing", "payload_truncated", written(body))
    add("padding-too-long", "payload_corrupt", written(body + bytes(padme(300) - 300 + 16)))
    add("length-too-small", "payload_corrupt", length=299)
    add("length-of-a-smaller-bucket", "payload_corrupt", length=256)
    add("length-of-a-larger-bucket", "payload_truncated", length=400)
    add("length-negative", "malformed", length=-1)
    add("cut", "payload_truncated", good[:-1])
    add("trailing-byte", "payload_corrupt", good + b"\x00")
    add("tampered", "payload_corrupt", flip(good, 0))
    add("another-epoch", "payload_corrupt", context={**world.context_members, "epoch": 1})
    return made


def signatures() -> list[Vector]:
    made: list[Vector] = []
    # RFC 8032 section 7.1, test 1: the empty message.
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    order = 2**252 + 27742317777372353535851937790883648493
    bigger_s = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    own = SigningKey(PATIENT.derive("identity/0", 32))
    stranger = SigningKey(STRANGER.derive("identity/0", 32))
    message = b"a statement"

    def add(name: str, expect: str, key: bytes, text: bytes, sign: bytes) -> None:
        inputs = {"public_key": key.hex(), "message": text.hex(), "signature": sign.hex()}
        made.append({"id": f"signature-{name}", "kind": "signature", **inputs, "expect": expect})

    bad = "bad_signature"
    add("rfc8032-test-1", "ok", public, b"", signature)
    add("tampered-r", bad, public, b"", flip(signature, 0))
    add("tampered-s", bad, public, b"", flip(signature, 32))
    add("another-message", bad, public, b"\x00", signature)
    add("another-key", bad, bytes(own.verify_key), b"", signature)
    add("s-not-reduced", bad, public, b"", signature[:32] + bigger_s)
    add("one-byte-short", bad, public, b"", signature[:-1])
    add("trailing-byte", bad, public, b"", signature + b"\x00")
    add("empty", bad, public, b"", b"")

    def key(name: str, expect: str, data: bytes) -> None:
        made.append({"id": f"verify_key-{name}", "kind": "verify_key", "data": data.hex(), "expect": expect})

    key("good", "ok", public)
    key("short", MALFORMED, public[:-1])
    key("trailing-byte", MALFORMED, public + b"\x00")
    key("neutral-element", MALFORMED, b"\x01" + bytes(31))
    key("order-two", MALFORMED, (2**255 - 20).to_bytes(32, "little"))
    key("order-four", MALFORMED, bytes(32))
    key("order-eight", MALFORMED, bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"))
    key("y-not-reduced", MALFORMED, (2**255 - 19 + 3).to_bytes(32, "little"))
    key("not-on-curve", MALFORMED, b"\x02" + bytes(31))

    did = did_from_key(bytes(own.verify_key))
    for name, signer, expect in (("own", own, "ok"), ("somebody-elses", stranger, bad)):
        inputs = {"did": did, "message": message.hex(), "signature": signer.sign(message).hex()}
        made.append({"id": f"did_signature-{name}", "kind": "did_signature", **inputs, "expect": expect})
    return made


def boxes() -> list[Vector]:
    made: list[Vector] = []
    private = PATIENT.derive("sealing", 32)
    box = seal(SealingKey(private).public_key, b"one share")

    def sealed(name: str, expect: str, ciphertext: bytes, holder: bytes = private) -> None:
        extra = {"plaintext": b"one share".hex()} if expect == "ok" else {}
        inputs = {"private_key": holder.hex(), "ciphertext": ciphertext.hex()}
        made.append({"id": f"sealed-{name}", "kind": "sealed", **inputs, **extra, "expect": expect})

    failed = "decryption_failed"
    sealed("good", "ok", box)
    sealed("another-holder", failed, box, STRANGER.derive("sealing", 32))
    sealed("tampered", failed, flip(box, len(box) - 1))
    sealed("tampered-ephemeral-key", failed, flip(box, 0))
    sealed("shorter-than-overhead", failed, box[:47])
    sealed("empty", failed, b"")

    def key(name: str, expect: str, data: bytes) -> None:
        made.append({"id": f"sealing_key-{name}", "kind": "sealing_key", "data": data.hex(), "expect": expect})

    key("good", "ok", bytes(SealingKey(private).public_key))
    key("zero", MALFORMED, bytes(32))
    key("one", MALFORMED, b"\x01" + bytes(31))
    key("minus-one", MALFORMED, (2**255 - 20).to_bytes(32, "little"))
    key("order-eight", MALFORMED, bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"))
    key("not-reduced", MALFORMED, (2**255 - 19 + 9).to_bytes(32, "little"))
    key("top-bit-set", MALFORMED, b"\x09" + bytes(30) + b"\x80")
    key("short", MALFORMED, b"\x09" + bytes(30))

    # draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    aead_key, aad = bytes(range(0x80, 0xA0)), bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    known = bytes(range(0x40, 0x58)) + bytes.fromhex(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
        "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52e"
        "c0875924c1c7987947deafd8780acf49"
    )

    def message(name: str, expect: str, ciphertext: bytes = known, bound: bytes = aad, key: bytes = aead_key) -> None:
        extra = {"plaintext": text.hex()} if expect == "ok" else {}
        inputs = {"key": key.hex(), "ciphertext": ciphertext.hex(), "aad": bound.hex()}
        made.append({"id": f"aead-{name}", "kind": "aead", **inputs, **extra, "expect": expect})

    message("draft-xchacha-a31", "ok")
    message("another-aad", failed, bound=b"")
    message("another-key", failed, key=bytes(32))
    message("tampered", failed, flip(known, 30))
    message("tampered-nonce", failed, flip(known, 0))
    message("shorter-than-overhead", failed, known[:39])
    message("short-key", MALFORMED, key=aead_key[:-1])
    return made


def encodings() -> list[Vector]:
    made: list[Vector] = []

    def base64url(name: str, expect: str, text: str, size: int | None = None) -> None:
        made.append({"id": f"base64url-{name}", "kind": "base64url", "text": text, "size": size, "expect": expect})

    bad = "malformed"
    base64url("good", "ok", "_-8")
    base64url("good-with-size", "ok", "_-8", 2)
    base64url("empty", "ok", "")
    base64url("padded", bad, "_-8=")
    base64url("standard-alphabet", bad, "/+8")
    base64url("stray-bits", bad, "_-9")
    base64url("white-space", bad, "_-8\n")
    base64url("one-character-left", bad, "_-8AA")
    base64url("another-size", bad, "_-8", 3)
    base64url("not-ascii", bad, "_-８")

    def document(name: str, expect: str, text: str) -> None:
        made.append({"id": f"canonical_json-{name}", "kind": "canonical_json", "text": text, "expect": expect})

    document("good", "ok", '{"a":1,"b":[true,null,"ü"]}')
    document("duplicate-member", bad, '{"a":1,"a":1}')
    document("float", bad, '{"a":1.5}')
    document("float-whole", bad, '{"a":1.0}')
    document("exponent", bad, '{"a":1e2}')
    document("not-a-number", bad, '{"a":NaN}')
    document("space", bad, '{"a": 1}')
    document("trailing-newline", bad, '{"a":1}\n')
    document("order", bad, '{"b":1,"a":1}')
    document("needless-escape", bad, '{"a":"\\u0041"}')
    document("integer-too-large", bad, '{"a":9007199254740992}')
    document("minus-zero", bad, '{"a":-0}')
    document("lone-surrogate", bad, '{"a":"\\ud800"}')
    document("deepest-allowed", "ok", "[" * 16 + "]" * 16)
    document("too-deep", bad, "[" * 17 + "]" * 17)
    document("far-too-deep", bad, "[" * 5_000 + "]" * 5_000)
    document("trailing-data", bad, "{}{}")
    document("empty", bad, "")
    return made


def derivations() -> list[Vector]:
    # RFC 5869 appendix A.3: empty salt and empty info.
    made: list[Vector] = [
        {
            "id": "hkdf-rfc5869-a3",
            "kind": "hkdf",
            "key": (b"\x0b" * 22).hex(),
            "info": "",
            "size": 42,
            "output": "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            "expect": "ok",
        }
    ]
    for label in (SCOPE, "receiving/0", "signer/0", "scope/ä/12"):
        public = bytes(PATIENT.umbral_key(label).public_key()).hex()
        made.append(
            {
                "id": f"umbral_key-{label}",
                "kind": "umbral_key",
                "seed": PATIENT.reveal().hex(),
                "label": label,
                "public_key": public,
                "expect": "ok",
            }
        )
    for label, size in (("identity/0", 32), ("scope-id/allergies", 16), ("long", 8160)):
        inputs = {"seed": PATIENT.reveal().hex(), "label": label, "size": size}
        output = PATIENT.derive(label, size).hex()
        made.append({"id": f"derive-{label}", "kind": "derive", **inputs, "output": output, "expect": "ok"})
    for size in (0, 31, 33):
        made.append({"id": f"seed-of-{size}", "kind": "seed", "data": bytes(size).hex(), "expect": MALFORMED})
    for length in (0, 1, 256, 257, 300, 1000, 65_536, 65_537, 1_000_000, 2**32 + 1):
        made.append(
            {"id": f"padme-{length}", "kind": "padme", "length": length, "padded": padme(length), "expect": "ok"}
        )
    made.append({"id": "padme-negative", "kind": "padme", "length": -1, "expect": "malformed"})
    return made


def write(name: str, vectors: list[Vector], blobs: dict[str, bytes] | None = None) -> None:
    content: dict[str, Any] = {"vectors": vectors}
    if blobs is not None:
        content["blobs"] = {blob: base64.b64encode(data).decode("ascii") for blob, data in blobs.items()}
    text = json.dumps(content, indent=1, ensure_ascii=True, sort_keys=True) + "\n"
    (HERE / f"{name}.json").write_text(text, encoding="ascii")


def main() -> None:
    load_engine("umbral")
    with use_engine("umbral-pre"):
        world = World()
        write("parsing", parsing(world))
        write("kfrags", shares(world) + thresholds())
        write("cfrags", fragments(world))
        write("opening", opening(world))
        write("envelopes", envelopes(world))
        write("headers", headers(world))
        blobs, vectors = streams(world)
        write("streams", vectors, blobs)
        write("bodies", bodies(world))
        write("signatures", signatures())
        write("boxes", boxes())
        write("encodings", encodings())
        write("derivations", derivations())
        write("log", log.make())


if __name__ == "__main__":
    main()
