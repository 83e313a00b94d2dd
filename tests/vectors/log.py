"""The vectors of the transparency logs: how each kind is run, and how `log.json` is made, the same at every run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.crypto.signing import SigningKey, VerifyKey
from shared.did import did_from_key
from shared.encoding import b64url, canonical_json
from shared.transparency.checkpoints import (
    cosign,
    origin_of,
    sign_checkpoint,
    verify_checkpoint,
    verify_cosignatures,
    with_cosignatures,
)
from shared.transparency.entries import commitment, key_entry_data, key_label, parse_event, scope_label
from shared.transparency.merkle import (
    EMPTY_ROOT,
    Frontier,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    verify_consistency,
    verify_inclusion,
)
from shared.transparency.notes import NoteSignature, SignedNote, sign_text
from shared.transparency.proofs import TlogProof
from shared.transparency.witnessing import AddCheckpoint, Known, judge

Vector = dict[str, Any]


def inclusion(vector: Vector) -> None:
    leaf, root = bytes.fromhex(vector["leaf"]), bytes.fromhex(vector["root"])
    path = [bytes.fromhex(step) for step in vector["path"]]
    verify_inclusion(leaf, vector["index"], vector["size"], path, root)


def consistency(vector: Vector) -> None:
    old, new = bytes.fromhex(vector["old_root"]), bytes.fromhex(vector["new_root"])
    path = [bytes.fromhex(step) for step in vector["path"]]
    verify_consistency(vector["old_size"], old, vector["new_size"], new, path)


def checkpoint(vector: Vector) -> None:
    verified = verify_checkpoint(vector["note"], vector["origin"])
    assert (verified.size, verified.root.hex()) == (vector["size"], vector["root"])


def cosignatures(vector: Vector) -> None:
    witnesses = {
        did: frozenset(VerifyKey(bytes.fromhex(key)) for key in keys) for did, keys in vector["witnesses"].items()
    }
    assert verify_cosignatures(vector["note"], witnesses) == vector["times"]


def submission(vector: Vector) -> None:
    known = vector["known"] and Known(vector["known"]["size"], bytes.fromhex(vector["known"]["root"]))
    request = AddCheckpoint.parse(vector["body"])
    assert request.format() == vector["body"]
    assert judge(known, request, vector["origin"]).size == vector["size"]


def event(vector: Vector) -> None:
    read = parse_event(vector["text"])
    assert commitment(bytes.fromhex(vector["salt"]), read.canonical()).hex() == vector["commitment"]


def key_entry(vector: Vector) -> None:
    scope = vector["scope"]
    label = key_label(vector["did"]) if scope is None else scope_label(vector["did"], scope)
    assert key_entry_data(label, vector["statement"]).hex() == vector["data"]


def proof_file(vector: Vector) -> None:
    proof = TlogProof.parse(vector["text"])
    assert proof.format() == vector["text"]
    proof.verify(bytes.fromhex(vector["leaf"]), vector["origin"])


RUN: dict[str, Callable[[Vector], None]] = {
    "log_checkpoint": checkpoint,
    "log_consistency": consistency,
    "log_cosignatures": cosignatures,
    "log_event": event,
    "log_inclusion": inclusion,
    "log_key_entry": key_entry,
    "log_proof_file": proof_file,
    "log_submission": submission,
}

LOG, OTHER_LOG, FIRST, SECOND = (SigningKey(bytes([fill]) * 32) for fill in (0x41, 0x42, 0x43, 0x44))
DIDS = [did_from_key(bytes(key.verify_key)) for key in (FIRST, SECOND)]
WITNESSES = {did: [bytes(key.verify_key).hex()] for did, key in zip(DIDS, (FIRST, SECOND), strict=True)}
ORIGIN = origin_of("registry", LOG.verify_key)
NOW = 1_800_000_000
HASH = b64url(bytes(range(32)))


class Tree:
    """A tree over `count` leaves, of which the one at `fork` may be another."""

    def __init__(self, count: int, fork: int | None = None) -> None:
        frontier = Frontier()
        self.roots, self.nodes = [frontier.root()], {}
        for index in range(count):
            leaf = leaf_hash(b"fork" if index == fork else index.to_bytes(4, "big"))
            self.nodes[0, index] = leaf
            self.nodes |= {(level, position): node for level, position, node in frontier.append(leaf)}
            self.roots.append(frontier.root())

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        return prove_inclusion(index, size, lambda level, position: self.nodes[level, position])

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        return prove_consistency(old, new, lambda level, position: self.nodes[level, position])

    def note(self, size: int) -> str:
        return sign_checkpoint(LOG, "registry", size, self.roots[size])


TREE, FORK = Tree(13), Tree(13, fork=3)


def make() -> list[Vector]:
    """All vectors of `log.json`."""
    return [*_inclusions(), *_consistencies(), *_checkpoints(), *_cosignatures(), *_submissions(), *_events(),
            *_key_entries(), *_proof_files()]  # fmt: skip


def _maker(kind: str, good: Vector) -> tuple[list[Vector], Callable[..., None]]:
    """A list of vectors of one kind, and the function that adds one which differs from the good one as named."""
    vectors: list[Vector] = []

    def add(name: str, expect: str, **changed: Any) -> None:
        vectors.append({"id": f"{kind}-{name}", "kind": kind, "expect": expect} | good | changed)

    return vectors, add


def _inclusions() -> list[Vector]:
    path = [step.hex() for step in TREE.inclusion(6, 13)]
    good = {"leaf": TREE.nodes[0, 6].hex(), "index": 6, "size": 13, "path": path, "root": TREE.roots[13].hex()}
    vectors, add = _maker("log_inclusion", good)
    add("good", "ok")
    add("only-leaf", "ok", leaf=TREE.nodes[0, 0].hex(), index=0, size=1, path=[], root=TREE.roots[1].hex())
    last = [step.hex() for step in TREE.inclusion(12, 13)]
    add("last-leaf", "ok", leaf=TREE.nodes[0, 12].hex(), index=12, path=last)
    add("other-leaf", "not_in_log", leaf=TREE.nodes[0, 7].hex())
    add("other-index", "not_in_log", index=7)
    add("index-beyond-the-size", "not_in_log", index=13)
    add("negative-index", "not_in_log", index=-1)
    add("other-size", "not_in_log", size=8)
    add("other-root", "not_in_log", root=FORK.roots[13].hex())
    add("short-path", "not_in_log", path=path[:-1])
    add("long-path", "not_in_log", path=[*path, path[0]])
    add("swapped-path", "not_in_log", path=[path[1], path[0], *path[2:]])
    add("short-hash", "not_in_log", path=[path[0][:-2], *path[1:]])
    add("no-leaves", "not_in_log", index=0, size=0, path=[], root=EMPTY_ROOT.hex())
    return vectors


def _consistencies() -> list[Vector]:
    path = [step.hex() for step in TREE.consistency(6, 13)]
    good = {"old_size": 6, "old_root": TREE.roots[6].hex(), "new_size": 13, "new_root": TREE.roots[13].hex()}
    vectors, add = _maker("log_consistency", good | {"path": path})
    add("good", "ok")
    power = [step.hex() for step in TREE.consistency(8, 13)]
    add("from-a-power-of-two", "ok", old_size=8, old_root=TREE.roots[8].hex(), path=power)
    add("from-no-leaves", "ok", old_size=0, old_root=EMPTY_ROOT.hex(), path=[])
    add("same-size", "ok", old_size=13, old_root=TREE.roots[13].hex(), path=[])
    add("from-no-leaves-with-a-proof", "log_forked", old_size=0, old_root=EMPTY_ROOT.hex())
    add("from-no-leaves-with-a-root", "log_forked", old_size=0, path=[])
    add("same-size-other-root", "log_forked", old_size=13, old_root=FORK.roots[13].hex(), path=[])
    add("same-size-with-a-proof", "log_forked", old_size=13, old_root=TREE.roots[13].hex(), path=path[:1])
    add("forked-before", "log_forked", old_root=FORK.roots[6].hex())
    add("forked-after", "log_forked", new_root=FORK.roots[13].hex())
    add("other-old-size", "log_forked", old_size=5)
    add("other-new-size", "log_forked", new_size=20)
    add("backwards", "log_forked", old_size=13, old_root=TREE.roots[13].hex(), new_size=6, new_root=TREE.roots[6].hex())
    add("empty-path", "log_forked", path=[])
    add("short-path", "log_forked", path=path[:-1])
    add("long-path", "log_forked", path=[*path, path[0]])
    return vectors


def _checkpoints() -> list[Vector]:
    note, text = TREE.note(13), SignedNote.parse(TREE.note(13)).text
    good = {"origin": ORIGIN, "note": note, "size": 13, "root": TREE.roots[13].hex()}
    vectors, add = _maker("log_checkpoint", good)

    def sign(changed: str, key: SigningKey = LOG) -> str:
        return f"{changed}\n{sign_text(changed, ORIGIN, key).format()}"

    own = sign_text(text, ORIGIN, LOG)
    stranger = NoteSignature("example.com/stranger", own.key_id, bytes(64)).format()
    false = NoteSignature(ORIGIN, own.key_id, bytes(64)).format()
    add("good", "ok")
    add("of-no-leaves", "ok", note=TREE.note(0), size=0, root=EMPTY_ROOT.hex())
    add("beside-an-unknown-signature", "ok", note=note + stranger)
    add("beside-a-false-signature", "bad_checkpoint_signature", note=note + false)
    add("by-another-key", "bad_checkpoint_signature", note=sign(text, OTHER_LOG))
    add("by-a-stranger-only", "bad_checkpoint_signature", note=f"{text}\n{stranger}")
    add("of-another-kind", "bad_checkpoint_signature", origin=origin_of("records", LOG.verify_key))
    add("other-size", "bad_checkpoint_signature", note=note.replace("\n13\n", "\n14\n"))
    add("signed-for-another-origin", "bad_checkpoint_signature", note=sign(text.replace("registry", "records")))
    add("leading-zero", "malformed", note=sign(text.replace("\n13\n", "\n013\n")))
    add("size-of-64-bits", "malformed", note=sign(text.replace("\n13\n", f"\n{2**63}\n")))
    add("extension-line", "malformed", note=sign(text + "extension\n"))
    add("unpadded-root", "malformed", note=sign(text.replace("=\n", "\n")))
    add("root-of-no-leaves", "malformed", note=sign(text.replace("\n13\n", "\n0\n")))
    add("unsigned", "malformed", note=text + "\n")
    add("hyphen-for-dash", "malformed", note=note.replace("\u2014", "-"))
    add("carriage-returns", "malformed", note=note.replace("\n", "\r\n"))
    add("no-last-newline", "malformed", note=note[:-1])
    return vectors


def _cosignatures() -> list[Vector]:
    verified = verify_checkpoint(TREE.note(13), ORIGIN)
    lines = [cosign(verified, DIDS[0], FIRST, NOW), cosign(verified, DIDS[1], SECOND, NOW + 1)]
    note = with_cosignatures(TREE.note(13), lines)
    good = {"note": note, "witnesses": WITNESSES, "times": {DIDS[0]: NOW, DIDS[1]: NOW + 1}}
    vectors, add = _maker("log_cosignatures", good)
    first = NoteSignature.parse(lines[0].rstrip("\n"))

    def replaced(signature: bytes) -> str:
        return note.replace(lines[0], NoteSignature(first.name, first.key_id, signature).format())

    late = (2**63).to_bytes(8, "big") + FIRST.sign(f"cosignature/v1\ntime {2**63}\n{verified.note.text}".encode())
    borrowed = cosign(verified, DIDS[0], SECOND, NOW)
    add("good", "ok")
    add("none", "ok", note=TREE.note(13), times={})
    add("of-one-that-is-unknown", "ok", witnesses={DIDS[1]: WITNESSES[DIDS[1]]}, times={DIDS[1]: NOW + 1})
    add("by-a-key-of-another", "ok", note=note.replace(lines[0], borrowed), times={DIDS[1]: NOW + 1})
    bad = "bad_checkpoint_signature"
    add("other-time", bad, note=replaced((NOW + 1).to_bytes(8, "big") + first.signature[8:]))
    add("time-beyond-63-bits", bad, note=replaced(late))
    add("without-time", bad, note=replaced(first.signature[8:]))
    add("other-signature", bad, note=replaced(first.signature[:-1] + bytes([first.signature[-1] ^ 1])))
    add("of-another-checkpoint", bad, note=with_cosignatures(TREE.note(12), lines))
    add("unpadded", "malformed", note=note.replace(lines[0], lines[0].replace("=\n", "\n")))
    return vectors


def _submissions() -> list[Vector]:
    def body(old: int, new: int, tree: Tree = TREE, path: tuple[bytes, ...] | None = None) -> str:
        steps = path if path is not None else tree.consistency(old, new)
        return AddCheckpoint(old, steps, tree.note(new)).format()

    def known(size: int) -> Vector:
        return {"size": size, "root": TREE.roots[size].hex()}

    good = {"origin": ORIGIN, "known": known(6), "body": body(6, 13), "size": 13}
    vectors, add = _maker("log_submission", good)
    unsigned = body(6, 13).replace("\n13\n", "\n12\n")
    add("good", "ok")
    add("first", "ok", known=None, body=body(0, 13))
    add("once-more", "ok", known=known(13), body=body(13, 13))
    add("unknown-log", "unknown_log", origin=None)
    add("other-log", "unknown_log", origin=origin_of("registry", OTHER_LOG.verify_key))
    add("not-signed", "not_signed_by_log", body=unsigned)
    add("old-above-new", "malformed", body=body(13, 6, path=()))
    add("old-size-with-leading-zero", "malformed", body=body(6, 13).replace("old 6", "old 06"))
    add("no-old-size", "malformed", body=body(6, 13).replace("old 6\n", ""))
    add(
        "too-many-proof-lines",
        "malformed",
        body=body(6, 13).replace("old 6\n", f"old 6\n{('A' * 43 + '=' + chr(10)) * 64}"),
    )
    add("other-old-size", "stale_size", body=body(5, 13))
    add("old-size-where-none-is-known", "stale_size", known=None)
    add("rolled-back", "stale_size", known=known(13))
    add("same-size-other-root", "stale_size", body=body(6, 6, FORK))
    add("fork", "log_forked", body=body(6, 13, FORK))
    add("no-proof", "log_forked", body=body(6, 13, path=()))
    add("proof-where-none-is-due", "log_forked", known=None, body=body(0, 13, path=(EMPTY_ROOT,)))
    return vectors


def _events() -> list[Vector]:
    members = {
        "v": 1, "subject": DIDS[0], "n": 2, "prev": HASH, "at": NOW, "event": "disclosure", "outcome": "done",
        "actor": DIDS[1], "grant": HASH, "statement": HASH, "capsules": [HASH],
    }  # fmt: skip

    def text(**changed: Any) -> str:
        return canonical_json({k: v for k, v in (members | changed).items() if v != ""}).decode()

    def committed(event: str) -> str:
        return commitment(bytes(range(32)), event.encode()).hex()

    vectors, add = _maker(
        "log_event", {"salt": bytes(range(32)).hex(), "text": text(), "commitment": committed(text())}
    )
    first = text(n=1, prev="", actor="", grant="", statement="", capsules="")
    add("good", "ok")
    add("first", "ok", text=first, commitment=committed(first))
    add("salt-too-short", "malformed", salt=bytes(31).hex())
    add("first-with-a-predecessor", "malformed", text=text(n=1))
    add("later-without-a-predecessor", "malformed", text=text(prev=""))
    add("number-zero", "malformed", text=text(n=0, prev=""))
    add("other-version", "malformed", text=text(v=2))
    add("unknown-member", "malformed", text=text(patient=DIDS[0]))
    add("null-member", "malformed", text=text(grant=None))
    add("no-capsules", "malformed", text=text(capsules=[]))
    add("not-canonical", "malformed", text=text().replace(":", ": ", 1))
    add("subject-is-no-party", "malformed", text=text(subject="urn:pcehr:records"))
    return vectors


def _key_entries() -> list[Vector]:
    scope = b64url(bytes(range(16)))
    label, statement = key_label(DIDS[0]), bytes(range(32))
    good = {"did": DIDS[0], "scope": None, "statement": HASH, "data": (label + statement).hex()}
    vectors, add = _maker("log_key_entry", good)
    add("good", "ok")
    add("of-a-scope", "ok", scope=scope, data=(scope_label(DIDS[0], scope) + statement).hex())
    add("of-no-party", "malformed", did="did:web:example.com")
    add("of-a-scope-name", "malformed", scope="mental-health")
    add("short-statement-id", "malformed", statement=HASH[:-1])
    return vectors


def _proof_files() -> list[Vector]:
    text = TlogProof(6, TREE.inclusion(6, 13), TREE.note(13), b"extra").format()
    vectors, add = _maker("log_proof_file", {"origin": ORIGIN, "leaf": TREE.nodes[0, 6].hex(), "text": text})
    add("good", "ok")
    add("without-extra", "ok", text=text.replace("extra ZXh0cmE=\n", ""))
    add("other-leaf", "not_in_log", leaf=TREE.nodes[0, 7].hex())
    add("other-index", "not_in_log", text=text.replace("index 6", "index 7"))
    add("other-log", "bad_checkpoint_signature", origin=origin_of("registry", OTHER_LOG.verify_key))
    add("other-size", "bad_checkpoint_signature", text=text.replace("\n13\n", "\n14\n"))
    add("other-version", "malformed", text=text.replace("@v1", "@v2"))
    add("no-index", "malformed", text=text.replace("index 6\n", ""))
    add("index-with-leading-zero", "malformed", text=text.replace("index 6", "index 06"))
    return vectors
