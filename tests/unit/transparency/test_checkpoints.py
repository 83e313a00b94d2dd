"""Notes, checkpoints and cosignatures: published examples, every refusal, and what a reader believes."""

from __future__ import annotations

from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey as SodiumKey

from shared.crypto.errors import BadSignature
from shared.crypto.signing import SigningKey, VerifyKey
from shared.did import multibase
from shared.errors import PcehrError
from shared.transparency.checkpoints import (
    KINDS,
    Checkpoint,
    accept_cosignatures,
    cosign,
    key_of_origin,
    origin_of,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
    verify_cosignatures,
    with_cosignatures,
)
from shared.transparency.errors import BadCheckpointSignature, CheckpointMalformed
from shared.transparency.merkle import EMPTY_ROOT, MAX_SIZE
from shared.transparency.notes import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    NoteKey,
    NoteSignature,
    SignatureType,
    SignedNote,
    cosign_text,
    parse_signature_lines,
    sign_text,
)
from tests.unit.transparency.trees import DIDS, LOG_KEY, NOW, OTHER_LOG_KEY, WITNESSES, unhurried

ROOT = bytes(range(32))
ORIGIN = origin_of("registry", LOG_KEY.verify_key)
NOTE = sign_checkpoint(LOG_KEY, "registry", 5, ROOT)
TEXT, _, LINE = NOTE.rpartition("\n\n")
CHECKPOINT = verify_checkpoint(NOTE, ORIGIN)
KEYS = {did: frozenset({key.verify_key}) for did, key in zip(DIDS, WITNESSES, strict=True)}


def signed(text: str, *, name: str = ORIGIN, key: SigningKey = LOG_KEY) -> str:
    """A note over any text, as a log that does not keep to the format could sign it."""
    return f"{text}\n{sign_text(text, name, key).format()}"


def cosigned(count: int = 3, now: int = NOW) -> str:
    lines = [cosign(CHECKPOINT, did, key, now) for did, key in list(zip(DIDS, WITNESSES, strict=True))[:count]]
    return with_cosignatures(NOTE, lines)


def vkey(text: str) -> tuple[NoteKey, str]:
    """A key in the form of signed-note, `name+id+base64(type || key)`, and the id that stands in it."""
    name, key_id, encoded = text.split("+", 2)
    data = b64decode(encoded)
    return NoteKey(name, VerifyKey(data[1:]), SignatureType(data[0])), key_id


class TestPublishedExamples:
    """Signatures that others have made: the example of C2SP signed-note, and the test data of Go's implementations."""

    EXAMPLE = (
        "This is an example message.\n\n"
        "— example.com/foo "
        "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
    )
    EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"

    def test_the_example_of_signed_note_verifies(self) -> None:
        key, _ = vkey(self.EXAMPLE_KEY)
        (verified,) = SignedNote.parse(self.EXAMPLE).verify([key])
        assert verified.key == key
        assert verified.timestamp is None
        assert SignedNote.parse(self.EXAMPLE).format() == self.EXAMPLE

    def test_the_example_with_one_letter_changed_is_refused(self) -> None:
        key, _ = vkey(self.EXAMPLE_KEY)
        with pytest.raises(BadCheckpointSignature):
            SignedNote.parse(self.EXAMPLE.replace("an example", "no example")).verify([key])

    @pytest.mark.parametrize(
        "text",
        [
            EXAMPLE_KEY,
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop",
            "TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6",
            "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        ],
    )
    def test_key_ids(self, text: str) -> None:
        """Both types are among them: 1, and 4 for a witness."""
        key, key_id = vkey(text)
        assert key.key_id.hex() == key_id

    def test_the_examples_of_tlog_cosignature_are_read(self) -> None:
        """Their public keys are not published; the forms and the time of the cosignature are."""
        note = SignedNote.parse(
            "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
            "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+"
            "zyWE+xeMcTOAYQ8=\n"
            "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5"
            "nNo0xUe+mbIUBkBIfZ+qnA==\n"
        )
        assert [len(signature.signature) for signature in note.signatures] == [64, 72]
        assert int.from_bytes(note.signatures[1].signature[:8], "big") == 1679315147


class TestOrigins:
    @pytest.mark.parametrize("kind", KINDS)
    def test_an_origin_holds_kind_and_key(self, kind: str) -> None:
        origin = origin_of(kind, LOG_KEY.verify_key)
        assert origin == f"pcehr/{kind}/{multibase(bytes(LOG_KEY.verify_key))}"
        assert key_of_origin(origin) == (kind, LOG_KEY.verify_key)

    @pytest.mark.parametrize(
        "origin",
        [
            "",
            "pcehr/registry/",
            "example.com/log",
            ORIGIN.replace("registry", "client"),
            ORIGIN.replace("registry", "Registry"),
            ORIGIN + "/",
            ORIGIN + " ",
            ORIGIN[:-1],
            " " + ORIGIN,
            ORIGIN.replace("z6Mk", "z6Mł"),
            "pcehr/registry/" + multibase(b"\x00" * 32),
        ],
    )
    def test_any_other_text_is_refused(self, origin: str) -> None:
        with pytest.raises(CheckpointMalformed):
            key_of_origin(origin)


class TestLogSignature:
    def test_a_signed_checkpoint_verifies(self) -> None:
        assert (CHECKPOINT.origin, CHECKPOINT.size, CHECKPOINT.root) == (ORIGIN, 5, ROOT)
        assert CHECKPOINT.format() == NOTE
        assert verify_checkpoint(NOTE.encode(), ORIGIN) == CHECKPOINT
        assert CHECKPOINT.note.text + "\n" + LINE == NOTE
        assert CHECKPOINT.note.text == CHECKPOINT.text() == f"{ORIGIN}\n5\n{b64encode(ROOT).decode()}\n"

    def test_the_signature_is_plain_ed25519_over_the_text(self) -> None:
        data = b64decode(LINE.split(" ")[2])
        SodiumKey(b"\x01" * 32).verify_key.verify(Checkpoint(ORIGIN, 5, ROOT).text().encode(), data[4:])

    def test_a_verified_checkpoint_cannot_be_changed(self) -> None:
        with pytest.raises(FrozenInstanceError):
            CHECKPOINT.size = 6  # type: ignore[misc]

    def test_the_empty_tree_is_signed_too(self) -> None:
        assert verify_checkpoint(sign_checkpoint(LOG_KEY, "registry", 0, EMPTY_ROOT), ORIGIN).size == 0

    @pytest.mark.parametrize(("size", "root"), [(-1, ROOT), (2**63, ROOT), (5, ROOT[:31]), (0, ROOT)])
    def test_a_head_that_no_tree_has_is_not_signed(self, size: int, root: bytes) -> None:
        with pytest.raises(ValueError, match="no tree"):
            sign_checkpoint(LOG_KEY, "registry", size, root)

    @pytest.mark.parametrize(
        "origin", [origin_of("registry", OTHER_LOG_KEY.verify_key), origin_of("records", LOG_KEY.verify_key)]
    )
    def test_another_logs_checkpoint_is_refused(self, origin: str) -> None:
        """Another key, and the same key under another kind."""
        with pytest.raises(BadCheckpointSignature):
            verify_checkpoint(NOTE, origin)

    def test_a_signature_by_this_log_over_another_logs_text_is_refused(self) -> None:
        other = origin_of("records", LOG_KEY.verify_key)
        with pytest.raises(BadCheckpointSignature):
            verify_checkpoint(signed(Checkpoint(other, 5, ROOT).text()), ORIGIN)

    def test_another_key_under_this_logs_name_is_refused(self) -> None:
        with pytest.raises(BadCheckpointSignature):
            verify_checkpoint(signed(Checkpoint(ORIGIN, 5, ROOT).text(), key=OTHER_LOG_KEY), ORIGIN)

    @pytest.mark.parametrize(
        ("old", "new"), [("\n5\n", "\n6\n"), (b64encode(ROOT).decode(), b64encode(ROOT[::-1]).decode())]
    )
    def test_another_size_or_root_is_refused(self, old: str, new: str) -> None:
        with pytest.raises(BadCheckpointSignature):
            verify_checkpoint(NOTE.replace(old, new), ORIGIN)

    def test_a_false_signature_of_the_log_beside_a_true_one_refuses_the_note(self) -> None:
        true = NoteSignature.parse(LINE.removesuffix("\n"))
        false = NoteSignature(true.name, true.key_id, bytes(64)).format()
        for lines in (LINE + false, false + LINE):
            with pytest.raises(BadCheckpointSignature):
                verify_checkpoint(f"{TEXT}\n\n{lines}", ORIGIN)

    def test_unknown_signatures_are_ignored(self) -> None:
        """Neither the name alone nor the id alone makes a key a known one."""
        true = NoteSignature.parse(LINE.removesuffix("\n"))
        strangers = [
            NoteSignature("example.com/log", true.key_id, bytes(64)),
            NoteSignature(true.name, b"\x00\x00\x00\x00", bytes(64)),
            NoteSignature("post-quantum.example", b"abcd", bytes(2420)),
        ]
        note = f"{TEXT}\n\n{''.join(stranger.format() for stranger in strangers)}{LINE}"
        assert verify_checkpoint(note, ORIGIN).size == 5
        with pytest.raises(BadCheckpointSignature):
            verify_checkpoint(f"{TEXT}\n\n{strangers[0].format()}", ORIGIN)

    def test_a_cosignature_by_the_logs_key_is_no_signature_of_the_log(self) -> None:
        line = cosign_text(f"{TEXT}\n", ORIGIN, LOG_KEY, NOW).format()
        with pytest.raises(BadCheckpointSignature):
            verify_checkpoint(f"{TEXT}\n\n{line}", ORIGIN)

    @pytest.mark.parametrize(
        "text",
        [
            f"{ORIGIN}\n5\n",
            f"{ORIGIN}\n5\n{b64encode(ROOT).decode()}\nextension\n",
            f"{ORIGIN}\n05\n{b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n+5\n{b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n-5\n{b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n5 \n{b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n٥\n{b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n\n{b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n{MAX_SIZE + 1}\n{b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n{'9' * 5000}\n{b64encode(ROOT).decode()}\n",
            f"{ORIGIN}\n5\n{b64encode(ROOT[:31]).decode()}\n",
            f"{ORIGIN}\n5\n{b64encode(ROOT).decode().rstrip('=')}\n",
            f"{ORIGIN}\n5\n{b64encode(ROOT).decode()} \n",
            f"{ORIGIN}\n5\n{b64encode(bytes([255]) * 32).decode().replace('/', '_')}\n",
            f"{ORIGIN}\n5\n{b64encode(bytes(32)).decode().replace('AA=', 'AB=')}\n",
            f"{ORIGIN}\n0\n{b64encode(ROOT).decode()}\n",
            f"example.com/log\n5\n{b64encode(ROOT).decode()}\n",
            "\n",
        ],
    )  # fmt: skip
    def test_a_signed_text_in_another_form_is_refused(self, text: str) -> None:
        with pytest.raises(CheckpointMalformed):
            verify_checkpoint(signed(text), ORIGIN)
        with pytest.raises(CheckpointMalformed):
            parse_checkpoint(signed(text))

    def test_the_largest_size_is_accepted(self) -> None:
        assert verify_checkpoint(sign_checkpoint(LOG_KEY, "registry", MAX_SIZE, ROOT), ORIGIN).size == MAX_SIZE

    def test_what_is_parsed_is_not_verified(self) -> None:
        parsed = parse_checkpoint(NOTE.replace("\n5\n", "\n6\n"))
        assert (parsed.origin, parsed.size, parsed.root) == (ORIGIN, 6, ROOT)
        assert type(parsed) is not type(CHECKPOINT)


class TestNoteForm:
    @pytest.mark.parametrize(
        "note",
        [
            "",
            "\n",
            "\n\n",
            "— a AAAAAAA=\n",
            TEXT + "\n",
            f"{TEXT}\n\n",
            f"{TEXT}\n{LINE}",
            NOTE.rstrip("\n"),
            NOTE + "\n",
            NOTE + "trailing\n",
            NOTE.replace("\n", "\r\n"),
            NOTE.replace("—", "-"),
            NOTE.replace("—", "–"),
            NOTE.replace("— ", "—"),
            NOTE.replace("— ", "—  "),
            NOTE.replace("— ", "\u2014\u00a0"),
            NOTE[:-1] + " \n",
            "\ufeff\x00" + NOTE,
            NOTE.replace("\n5\n", "\n5\t\n"),
            NOTE.replace("\n5\n", "\n5\x7f\n"),
            NOTE.replace("\n5\n", "\n5\x85\n"),
            f"{TEXT}\n\n— a+b AAAAAAA=\n",
            f"{TEXT}\n\n—  AAAAAAA=\n",
            f"{TEXT}\n\n— a\u2003b AAAAAAA=\n",
            f"{TEXT}\n\n— a AAAA\n",
            f"{TEXT}\n\n— a AAAAAA==\n",
            f"{TEXT}\n\n— a AAAAAAA\n",
            f"{TEXT}\n\n— a AAAAAAB=\n",
            f"{TEXT}\n\n— a AAAA_AA=\n",
            f"{TEXT}\n\n— a\n",
            f"{TEXT}\n\n— \n",
            f"{TEXT}\n\n" + "— a AAAAAAA=\n" * (MAX_SIGNATURES + 1),
            "x" * MAX_NOTE_BYTES + NOTE,
            NOTE.replace(ORIGIN, "ą" * (MAX_NOTE_BYTES // 2)),
            NOTE.replace(ORIGIN, "\ud800"),
        ],
    )
    def test_any_other_form_is_refused(self, note: str) -> None:
        with pytest.raises(CheckpointMalformed):
            SignedNote.parse(note)

    def test_bytes_that_are_not_utf8_are_refused(self) -> None:
        with pytest.raises(CheckpointMalformed):
            SignedNote.parse(b"\xff" + NOTE.encode())

    def test_the_last_empty_line_ends_the_text(self) -> None:
        note = SignedNote.parse(signed("a\n\nb\n\n"))
        assert note.text == "a\n\nb\n\n"
        assert note.verify([NoteKey(ORIGIN, LOG_KEY.verify_key, SignatureType.ED25519)])

    def test_as_many_signatures_as_are_allowed(self) -> None:
        assert len(SignedNote.parse(f"{TEXT}\n\n" + "— a AAAAAAA=\n" * MAX_SIGNATURES).signatures) == MAX_SIGNATURES

    def test_a_note_that_could_not_be_read_is_not_written(self) -> None:
        good = NoteSignature("a", b"abcd", b"signature")
        for note in (
            SignedNote("no newline", (good,)),
            SignedNote("text\n", ()),
            SignedNote("text\n", (good,) * (MAX_SIGNATURES + 1)),
            SignedNote("text\n", (NoteSignature("a b", b"abcd", b"signature"),)),
            SignedNote("tab\t\n", (good,)),
        ):
            with pytest.raises(CheckpointMalformed):
                note.format()

    @pytest.mark.parametrize("length", [0, 1, 7, 8, 63, 65, 71, 73])
    def test_signatures_of_another_length_do_not_verify(self, length: int) -> None:
        for kind in SignatureType:
            with pytest.raises(BadSignature):
                NoteKey(ORIGIN, LOG_KEY.verify_key, kind).verify(f"{TEXT}\n", bytes(length))


class TestCosignatures:
    def test_cosignatures_verify_with_their_times(self) -> None:
        assert verify_cosignatures(cosigned(), KEYS) == dict.fromkeys(DIDS, NOW)
        assert verify_checkpoint(cosigned(), ORIGIN).size == 5
        assert verify_cosignatures(NOTE, KEYS) == {}

    def test_what_is_signed_is_that_of_tlog_cosignature(self) -> None:
        data = b64decode(cosign(CHECKPOINT, DIDS[0], WITNESSES[0], 1679315147).split(" ")[2])
        message = f"cosignature/v1\ntime 1679315147\n{TEXT}\n".encode()
        assert int.from_bytes(data[4:12], "big") == 1679315147
        SodiumKey(b"\x0b" * 32).verify_key.verify(message, data[12:])

    def test_a_cosignature_says_nothing_of_another_checkpoint(self) -> None:
        other = sign_checkpoint(LOG_KEY, "registry", 6, ROOT)
        line = cosign(CHECKPOINT, DIDS[0], WITNESSES[0], NOW)
        with pytest.raises(BadCheckpointSignature):
            verify_cosignatures(with_cosignatures(other, [line]), KEYS)

    @pytest.mark.parametrize("at", [4, 11, 12, 43, 44, 75])
    def test_a_changed_time_or_signature_refuses_the_whole_note(self, at: int) -> None:
        note = cosigned()
        line = note.splitlines(keepends=True)[-1]
        data = bytearray(b64decode(line.split(" ")[2]))
        data[at] ^= 1
        changed = f"— {DIDS[2]} {b64encode(bytes(data)).decode()}\n"
        with pytest.raises(BadCheckpointSignature):
            verify_cosignatures(note.replace(line, changed), KEYS)

    def test_a_time_of_2_to_the_63_is_refused_although_it_is_signed(self) -> None:
        text = f"{TEXT}\n"
        signature = WITNESSES[0].sign(f"cosignature/v1\ntime {2**63}\n{text}".encode())
        key = NoteKey(DIDS[0], WITNESSES[0].verify_key, SignatureType.COSIGNATURE)
        line = NoteSignature(DIDS[0], key.key_id, (2**63).to_bytes(8, "big") + signature).format()
        with pytest.raises(BadCheckpointSignature):
            verify_cosignatures(NOTE + line, KEYS)
        for now in (-1, 2**63):
            with pytest.raises(ValueError, match="below"):
                cosign(CHECKPOINT, DIDS[0], WITNESSES[0], now)

    def test_others_cosignatures_are_ignored(self) -> None:
        """A witness that is not known, a key that is not the witness's, and one witness's key under another's name."""
        assert verify_cosignatures(cosigned(), {DIDS[1]: KEYS[DIDS[1]]}) == {DIDS[1]: NOW}
        assert verify_cosignatures(cosigned(1), {DIDS[0]: frozenset({OTHER_LOG_KEY.verify_key})}) == {}
        borrowed = cosign_text(f"{TEXT}\n", DIDS[1], WITNESSES[0], NOW).format()
        assert verify_cosignatures(NOTE + borrowed, KEYS) == {}

    def test_a_signature_of_type_1_by_a_witness_is_no_cosignature(self) -> None:
        line = sign_text(f"{TEXT}\n", DIDS[0], WITNESSES[0]).format()
        assert verify_cosignatures(NOTE + line, KEYS) == {}

    def test_a_witness_with_several_keys_counts_once_with_its_newest_time(self) -> None:
        lines = [
            cosign_text(f"{TEXT}\n", DIDS[0], WITNESSES[0], NOW + 5).format(),
            cosign_text(f"{TEXT}\n", DIDS[0], WITNESSES[1], NOW).format(),
        ]
        both = {DIDS[0]: frozenset({WITNESSES[0].verify_key, WITNESSES[1].verify_key})}
        assert verify_cosignatures(NOTE + "".join(lines), both) == {DIDS[0]: NOW + 5}
        assert verify_cosignatures(NOTE + "".join(reversed(lines)), both) == {DIDS[0]: NOW + 5}

    def test_two_keys_whose_ids_collide_both_verify(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An id has 32 bits, so that a party can make such keys; it must not be able to spoil a note with them."""
        monkeypatch.setattr("shared.transparency.notes._key_id", lambda *_: b"same")
        both = {DIDS[0]: frozenset({WITNESSES[0].verify_key, WITNESSES[1].verify_key})}
        for key in WITNESSES[:2]:
            line = cosign_text(f"{TEXT}\n", DIDS[0], key, NOW).format()
            assert verify_cosignatures(NOTE + line, both) == {DIDS[0]: NOW}
        line = cosign_text(f"{TEXT}\n", DIDS[0], WITNESSES[2], NOW).format()
        with pytest.raises(BadCheckpointSignature):
            verify_cosignatures(NOTE + line, both)

    def test_a_later_cosignature_takes_the_place_of_the_earlier(self) -> None:
        note = with_cosignatures(cosigned(), [cosign(CHECKPOINT, DIDS[1], WITNESSES[1], NOW + 600)])
        assert verify_cosignatures(note, KEYS) == {DIDS[0]: NOW, DIDS[1]: NOW + 600, DIDS[2]: NOW}
        assert len(SignedNote.parse(note).signatures) == 4

    def test_a_line_is_taken_with_or_without_its_newline(self) -> None:
        line = cosign(CHECKPOINT, DIDS[0], WITNESSES[0], NOW)
        assert with_cosignatures(NOTE, [line.rstrip("\n")]) == with_cosignatures(NOTE, [line]) == NOTE + line

    @pytest.mark.parametrize("line", ["", "\n", LINE, LINE + "\n", "— a AAAAAAA=\n", "two\nlines\n"])
    def test_what_is_no_cosignature_is_not_added(self, line: str) -> None:
        """Not even a second signature of the log, which could be a false one and take the note from its readers."""
        with pytest.raises(CheckpointMalformed):
            with_cosignatures(NOTE, [line])

    def test_a_cosignature_never_replaces_the_logs_signature(self) -> None:
        log = NoteSignature.parse(LINE.removesuffix("\n"))
        note = with_cosignatures(NOTE, [NoteSignature(log.name, log.key_id, bytes(72)).format()])
        assert LINE in note

    def test_a_note_does_not_grow_beyond_its_bound(self) -> None:
        lines = [NoteSignature("a", number.to_bytes(4, "big"), bytes(72)).format() for number in range(MAX_SIGNATURES)]
        with_cosignatures(NOTE, lines[1:])
        with pytest.raises(CheckpointMalformed):
            with_cosignatures(NOTE, lines)

    def test_of_an_answer_only_the_witnesss_own_lines_are_kept(self) -> None:
        own = cosign(CHECKPOINT, DIDS[0], WITNESSES[0], NOW)
        foreign = cosign(CHECKPOINT, DIDS[1], WITNESSES[1], NOW)
        false = NoteSignature(DIDS[2], b"abcd", bytes(72)).format()
        assert accept_cosignatures(CHECKPOINT, foreign + own + false, DIDS[0], KEYS[DIDS[0]]) == (own,)
        assert accept_cosignatures(CHECKPOINT, foreign, DIDS[0], KEYS[DIDS[0]]) == ()

    def test_a_false_or_malformed_answer_is_refused(self) -> None:
        own = NoteSignature.parse(cosign(CHECKPOINT, DIDS[0], WITNESSES[0], NOW).rstrip("\n"))
        false = NoteSignature(own.name, own.key_id, own.signature[:-1] + b"\x00").format()
        with pytest.raises(BadCheckpointSignature):
            accept_cosignatures(CHECKPOINT, false, DIDS[0], KEYS[DIDS[0]])
        for answer in ("", "\n", own.format().rstrip("\n"), own.format() + "\n", own.format() * 65, NOTE):
            with pytest.raises(CheckpointMalformed):
                accept_cosignatures(CHECKPOINT, answer, DIDS[0], KEYS[DIDS[0]])


class TestHostileBytes:
    @unhurried
    @given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
    def test_anything_is_refused_in_order(self, text: str | bytes) -> None:
        with pytest.raises(CheckpointMalformed):
            parse_checkpoint(text)
        for read in (SignedNote.parse, parse_signature_lines):
            with suppress(CheckpointMalformed):
                read(text)

    @unhurried
    @given(st.integers(0, len(cosigned().encode()) - 1), st.integers(0, 255), st.integers(0, 2))
    def test_one_changed_byte_never_gives_another_verified_head(self, at: int, byte: int, how: int) -> None:
        data = cosigned().encode()
        changed = data[:at] + (bytes([byte]) if how else b"") + data[at + (how < 2) :]
        try:
            checkpoint = verify_checkpoint(changed, ORIGIN)
            times = verify_cosignatures(changed, KEYS)
        except PcehrError:
            return
        assert (checkpoint.size, checkpoint.root) == (5, ROOT)
        assert all(times[did] == NOW for did in times)

    @unhurried
    @given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(min_size=5, max_size=90)), min_size=1))
    def test_what_can_be_read_is_written_as_it_was(self, lines: list[tuple[str, bytes]]) -> None:
        note = "text\n\n" + "".join(f"— {name} {b64encode(data).decode()}\n" for name, data in lines)
        try:
            parsed = SignedNote.parse(note)
        except PcehrError:
            return
        assert parsed.format() == note
