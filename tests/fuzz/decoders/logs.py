"""Transparency logs: checkpoints, notes, proofs, submissions to witnesses, leaves, events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from client.audit.chain import check_chain, check_log
from shared.encoding import b64url, sha256
from shared.transparency import checkpoints, entries, lines, merkle, notes, proofs, witnessing
from tests.fuzz.decoder import Decoder
from tests.fuzz.decoders.text import of_text, raw, text
from tests.fuzz.vectors import accepted
from tests.unit.transparency.trees import DIDS, LOG_KEY, NOW, WITNESSES

_INCLUSION = accepted("log_inclusion")[0]
_CONSISTENCY = accepted("log_consistency")[0]
_SUBMISSION = accepted("log_submission")[0]
_EVENT = accepted("log_event")[0]
_FILE = accepted("log_proof_file")[0]
_ORIGIN = checkpoints.origin_of("records", LOG_KEY.verify_key)
_NOTE = checkpoints.sign_checkpoint(LOG_KEY, "records", 7, sha256(b"root"))
_CHECKPOINT = checkpoints.verify_checkpoint(_NOTE, _ORIGIN)
_LINES = [checkpoints.cosign(_CHECKPOINT, did, key, NOW) for did, key in zip(DIDS, WITNESSES, strict=True)]
_COSIGNED = checkpoints.with_cosignatures(_NOTE, _LINES)
_KEYS = {did: frozenset([key.verify_key]) for did, key in zip(DIDS, WITNESSES, strict=True)}


def _hex(value: Any) -> bytes:
    return bytes.fromhex(value)


def _note(data: bytes) -> bytes:
    return raw(notes.SignedNote.parse(data).format())


def _signature_line(said: str) -> str:
    return notes.NoteSignature.parse(said).format().removesuffix("\n")


def _signature_lines(data: bytes) -> bytes:
    return raw("".join(line.format() for line in notes.parse_signature_lines(data)))


def _checkpoint(data: bytes) -> bytes:
    parsed = checkpoints.parse_checkpoint(data)
    assert parsed.note.text == parsed.text()
    return raw(parsed.note.format())


def _checkpoint_signed_anew(data: bytes) -> None:
    """Any text at all, signed by the log."""
    said = data.decode("utf-8", "replace")
    note = f"{said}\n{notes.sign_text(said, _ORIGIN, LOG_KEY).format()}"
    assert checkpoints.verify_checkpoint(note, _ORIGIN).text() == said


def _cosigned(data: bytes) -> None:
    """What verifies is cosigned by the witnesses and by nobody else, at the time they said."""
    times = checkpoints.verify_cosignatures(data, _KEYS)
    assert set(times) <= set(DIDS)
    assert not times or set(times.values()) == {NOW}
    checkpoints.verify_checkpoint(data, _ORIGIN)


def _cosignature(data: bytes) -> None:
    accepted_lines = checkpoints.accept_cosignatures(_CHECKPOINT, data, DIDS[0], _KEYS[DIDS[0]])
    assert set(accepted_lines) <= {_LINES[0]}


def _submission(data: bytes) -> bytes:
    request = witnessing.AddCheckpoint.parse(data)
    known = witnessing.Known(_SUBMISSION["known"]["size"], _hex(_SUBMISSION["known"]["root"]))
    assert witnessing.judge(known, request, request.origin).size >= known.size
    return raw(request.format())


def _proof_file(data: bytes) -> bytes:
    proof = proofs.TlogProof.parse(data)
    proof.verify(_hex(_FILE["leaf"]), _FILE["origin"])
    return raw(proof.format())


def _origin(said: str) -> str:
    kind, key = checkpoints.key_of_origin(said)
    return checkpoints.origin_of(kind, key)


def _hashes(data: bytes) -> list[bytes]:
    return [data[at : at + 32] for at in range(0, len(data), 32)]


def _inclusion(data: bytes) -> None:
    """Index and size (8 bytes each), then the path."""
    index, size = int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big")
    merkle.verify_inclusion(_hex(_INCLUSION["leaf"]), index, size, _hashes(data[16:]), _hex(_INCLUSION["root"]))


def _consistency(data: bytes) -> None:
    old, new = int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big")
    roots = _hex(_CONSISTENCY["old_root"]), _hex(_CONSISTENCY["new_root"])
    merkle.verify_consistency(old, roots[0], new, roots[1], _hashes(data[16:]))


def _sizes_and_path(first: int, second: int, path: Sequence[str]) -> bytes:
    return first.to_bytes(8, "big") + second.to_bytes(8, "big") + b"".join(map(_hex, path))


def _frontier(data: bytes) -> bytes:
    frontier = merkle.Frontier.from_bytes(data)
    frontier.root()
    return frontier.to_bytes()


def _event(data: bytes) -> bytes:
    return entries.parse_event(data).canonical()


def _chain_of_one(data: bytes) -> None:
    """An event as a service shows it, whose commitment holds, in a chain of one."""

    class Shown:
        n, event, salt = 1, text(data), b64url(bytes(32))
        commitment = b64url(entries.commitment(bytes(32), data))

    for subject in (DIDS[0], _SUBJECT):
        check_chain(subject, [Shown()])
        check_log("records", subject, [Shown()], [])


_SUBJECT = entries.parse_event(_EVENT["text"]).subject
_FIRST = entries.Event(subject=DIDS[0], n=1, at=NOW, event="granted", outcome="done", actor=DIDS[1])


def _leaf(data: bytes) -> bytes:
    label, statement = entries.split_key_entry(data)
    return entries.key_entry_data(label, statement)


DECODERS = (
    Decoder("note", _note, [raw(_NOTE), raw(_COSIGNED)]),
    Decoder("signature-line", of_text(_signature_line), [raw(_LINES[0][:-1])]),
    Decoder("signature-lines", _signature_lines, [raw(_LINES[0]), raw("".join(_LINES))]),
    Decoder("checkpoint", _checkpoint, [raw(_NOTE), raw(_COSIGNED)]),
    Decoder(
        "checkpoint-signed-anew",
        _checkpoint_signed_anew,
        [raw(_CHECKPOINT.text())],
        share=0.5,
    ),
    Decoder("cosignatures", _cosigned, [raw(_COSIGNED)], share=0.5),
    Decoder("cosignature-answered", _cosignature, [raw(_LINES[0])], share=0.5),
    Decoder("submission", _submission, [raw(_SUBMISSION["body"])], share=0.5),
    Decoder("proof-file", _proof_file, [raw(_FILE["text"])], share=0.5),
    Decoder("origin", of_text(_origin), [raw(_ORIGIN)]),
    Decoder("decimal", of_text(lambda said: str(lines.from_decimal(said))), [b"0", b"9223372036854775807"]),
    Decoder(
        "base64-lines",
        lambda data: raw(lines.path_lines(lines.path_from_lines(text(data).split("\n")[:-1]))) + _rest(data),
        [raw(lines.path_lines([bytes(32), sha256(b"x")]))],
    ),
    Decoder(
        "inclusion",
        _inclusion,
        [_sizes_and_path(_INCLUSION["index"], _INCLUSION["size"], _INCLUSION["path"])],
    ),
    Decoder(
        "consistency",
        _consistency,
        [_sizes_and_path(_CONSISTENCY["old_size"], _CONSISTENCY["new_size"], _CONSISTENCY["path"])],
    ),
    Decoder("frontier", _frontier, [merkle.Frontier().to_bytes()]),
    Decoder("event", _event, [raw(_EVENT["text"]), _FIRST.canonical()]),
    Decoder("event-in-a-chain", _chain_of_one, []),
    Decoder("leaf", _leaf, [bytes(range(64))]),
)


def _rest(data: bytes) -> bytes:
    """What stands after the last newline, which no line is made of."""
    return data.rpartition(b"\n")[2]
