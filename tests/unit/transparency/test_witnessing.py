"""The decision of a witness, case by case (C2SP tlog-witness), and the form of what it is handed."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import PcehrError
from shared.transparency.checkpoints import origin_of, sign_checkpoint
from shared.transparency.errors import (
    ConsistencyNotProven,
    MalformedSubmission,
    NotSignedByLog,
    StaleSize,
    UnknownLog,
)
from shared.transparency.merkle import EMPTY_ROOT, prove_consistency
from shared.transparency.notes import NoteSignature, SignedNote, sign_text
from shared.transparency.witnessing import MAX_PROOF_LINES, MAX_SUBMISSION_BYTES, AddCheckpoint, Known, judge
from tests.unit.transparency.trees import LOG_KEY, OTHER_LOG_KEY, GrownTree, unhurried

TREE = GrownTree([bytes([number]) for number in range(20)])
FORK = GrownTree([bytes([number]) for number in range(4)] + [b"forked"] + [bytes([number]) for number in range(5, 20)])
ORIGIN = origin_of("registry", LOG_KEY.verify_key)
OTHER_ORIGIN = origin_of("registry", OTHER_LOG_KEY.verify_key)


def note(size: int, tree: GrownTree = TREE) -> str:
    return sign_checkpoint(LOG_KEY, "registry", size, tree.root(size))


def known(size: int, tree: GrownTree = TREE) -> Known:
    return Known(size, tree.root(size))


def submission(old: int, new: int, tree: GrownTree = TREE) -> AddCheckpoint:
    return AddCheckpoint(old, prove_consistency(old, new, tree.node), note(new, tree))


class TestDecision:
    @pytest.mark.parametrize(
        ("before", "old", "new"), [(None, 0, 7), (None, 0, 0), (7, 7, 12), (7, 7, 7), (8, 8, 16), (0, 0, 3), (1, 1, 20)]
    )
    def test_a_proven_extension_is_cosigned(self, before: int | None, old: int, new: int) -> None:
        accepted = judge(None if before is None else known(before), submission(old, new), ORIGIN)
        assert (accepted.origin, accepted.size, accepted.root) == (ORIGIN, new, TREE.root(new))

    @pytest.mark.parametrize("origin", [None, OTHER_ORIGIN, origin_of("records", LOG_KEY.verify_key)])
    def test_404_for_a_log_that_is_not_known(self, origin: str | None) -> None:
        with pytest.raises(UnknownLog) as raised:
            judge(None, submission(0, 7), origin)
        assert raised.value.status == 404

    @pytest.mark.parametrize("key", [OTHER_LOG_KEY, None])
    def test_403_without_a_valid_signature_of_the_log(self, key: object) -> None:
        text = SignedNote.parse(note(7)).text
        true = sign_text(text, ORIGIN, LOG_KEY)
        signature = sign_text(text, ORIGIN, OTHER_LOG_KEY) if key else NoteSignature(ORIGIN, true.key_id, bytes(64))
        request = AddCheckpoint(0, (), SignedNote(text, (signature,)).format())
        with pytest.raises(NotSignedByLog) as raised:
            judge(None, request, ORIGIN)
        assert raised.value.status == 403

    def test_400_for_an_old_size_above_the_new_one(self) -> None:
        with pytest.raises(MalformedSubmission) as raised:
            judge(known(12), AddCheckpoint(12, (), note(7)), ORIGIN)
        assert raised.value.status == 400

    @pytest.mark.parametrize(
        ("before", "old", "new"), [(None, 3, 7), (7, 0, 12), (7, 6, 12), (7, 8, 12), (12, 0, 7), (12, 7, 7)]
    )
    def test_409_for_an_old_size_that_is_not_the_last_one(self, before: int | None, old: int, new: int) -> None:
        with pytest.raises(StaleSize) as raised:
            judge(None if before is None else known(before), submission(old, new), ORIGIN)
        assert (raised.value.status, raised.value.size) == (409, before or 0)

    def test_409_for_another_root_of_the_same_size(self) -> None:
        with pytest.raises(StaleSize) as raised:
            judge(known(7), submission(7, 7, FORK), ORIGIN)
        assert raised.value.size == 7

    def test_422_for_a_fork(self) -> None:
        """The proof holds in the other tree, and the log has signed it: still it does not extend what was cosigned."""
        with pytest.raises(ConsistencyNotProven) as raised:
            judge(known(7), submission(7, 12, FORK), ORIGIN)
        assert raised.value.status == 422

    @pytest.mark.parametrize(
        "path", [(), (EMPTY_ROOT,), prove_consistency(6, 12, TREE.node), prove_consistency(7, 12, TREE.node)[:-1]]
    )
    def test_422_for_a_proof_that_does_not_hold(self, path: tuple[bytes, ...]) -> None:
        with pytest.raises(ConsistencyNotProven):
            judge(known(7), AddCheckpoint(7, path, note(12)), ORIGIN)

    @pytest.mark.parametrize(("before", "size"), [(None, 7), (7, 7)])
    def test_422_for_a_proof_where_there_is_nothing_to_prove(self, before: int | None, size: int) -> None:
        request = AddCheckpoint(before or 0, (EMPTY_ROOT,), note(size))
        with pytest.raises(ConsistencyNotProven):
            judge(None if before is None else known(before), request, ORIGIN)

    def test_the_order_of_the_refusals(self) -> None:
        """Only whom the log has authorised learns the size; and nobody but the log can make a witness do arithmetic."""
        unsigned = AddCheckpoint(99, (EMPTY_ROOT,), note(7).replace("\n7\n", "\n8\n"))
        with pytest.raises(UnknownLog):
            judge(known(12), unsigned, None)
        with pytest.raises(NotSignedByLog):
            judge(known(12), unsigned, ORIGIN)
        with pytest.raises(MalformedSubmission):
            judge(known(12), AddCheckpoint(99, (EMPTY_ROOT,), note(7)), ORIGIN)
        with pytest.raises(StaleSize):
            judge(known(12), AddCheckpoint(3, (EMPTY_ROOT,), note(7)), ORIGIN)

    def test_a_checkpoint_that_is_none_is_malformed(self) -> None:
        with pytest.raises(MalformedSubmission):
            judge(None, AddCheckpoint(0, (), "no checkpoint"), ORIGIN)

    @unhurried
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(0, 20)), max_size=12))
    def test_whatever_is_submitted_all_that_is_cosigned_is_one_tree(self, tries: list[tuple[bool, int, int]]) -> None:
        state: Known | None = None
        cosigned: list[Known] = []
        for honest, old, new in tries:
            tree = TREE if honest else FORK
            path = prove_consistency(old, new, tree.node) if old <= new else ()
            try:
                accepted = judge(state, AddCheckpoint(old, path, note(new, tree)), ORIGIN)
            except (StaleSize, ConsistencyNotProven, MalformedSubmission):
                continue
            state = Known(accepted.size, accepted.root)
            cosigned.append(state)
        assert [head.size for head in cosigned] == sorted(head.size for head in cosigned)
        assert any(all(head.root == tree.root(head.size) for head in cosigned) for tree in (TREE, FORK))


class TestForm:
    def test_a_submission_is_read_as_it_was_written(self) -> None:
        request = submission(7, 12)
        lines = "".join(f"{b64encode(step).decode()}\n" for step in request.path)
        assert request.format() == f"old 7\n{lines}\n{note(12)}"
        assert AddCheckpoint.parse(request.format()) == AddCheckpoint.parse(request.format().encode()) == request
        assert request.origin == ORIGIN

    def test_the_first_submission_has_no_proof_lines(self) -> None:
        request = submission(0, 7)
        assert request.format() == f"old 0\n\n{note(7)}"
        assert AddCheckpoint.parse(request.format()) == request

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "old 0\n",
            "old 0\n\n",
            f"old 0\n{note(7)}",
            f"\n{note(7)}",
            f"old\n\n{note(7)}",
            f"old \n\n{note(7)}",
            f"old 00\n\n{note(7)}",
            f"old 07\n\n{note(7)}",
            f"old -1\n\n{note(7)}",
            f"old +1\n\n{note(7)}",
            f"old 1.0\n\n{note(7)}",
            f"old {2**63}\n\n{note(7)}",
            f"old  0\n\n{note(7)}",
            f"old 0 \n\n{note(7)}",
            f"Old 0\n\n{note(7)}",
            f"old 0\r\n\r\n{note(7)}",
            f"old 0\nnew 7\n\n{note(7)}",
            f"old 0\n{b64encode(EMPTY_ROOT[:31]).decode()}\n\n{note(7)}",
            f"old 0\n{b64encode(EMPTY_ROOT).decode().rstrip('=')}\n\n{note(7)}",
            f"old 0\n{b64encode(EMPTY_ROOT).decode()} \n\n{note(7)}",
            f"old 0\n\n\n{note(7)}",
            f"old 0\n\n{note(7)}".rstrip("\n"),
            f"old 0\n\n{note(7)}\n",
            f"old 0\n{(b64encode(EMPTY_ROOT).decode() + chr(10)) * (MAX_PROOF_LINES + 1)}\n{note(7)}",
            "old 0\n\n" + "x" * MAX_SUBMISSION_BYTES,
            "old 0\n\n\ud800",
            b"old 0\n\n\xff",
        ],
    )
    def test_any_other_form_is_refused(self, body: str | bytes) -> None:
        with pytest.raises(MalformedSubmission) as raised:
            AddCheckpoint.parse(body)
        assert (raised.value.status, raised.value.code) == (400, "malformed")

    def test_the_longest_proof_that_may_be_sent(self) -> None:
        request = AddCheckpoint(3, (EMPTY_ROOT,) * MAX_PROOF_LINES, note(7))
        assert AddCheckpoint.parse(request.format()) == request

    @pytest.mark.parametrize(
        "request_",
        [
            AddCheckpoint(-1, (), note(7)),
            AddCheckpoint(2**63, (), note(7)),
            AddCheckpoint(3, (EMPTY_ROOT,) * (MAX_PROOF_LINES + 1), note(7)),
        ],
    )
    def test_what_cannot_be_sent_is_not_written(self, request_: AddCheckpoint) -> None:
        with pytest.raises(ValueError, match="cannot be sent"):
            request_.format()

    @unhurried
    @given(st.one_of(st.binary(max_size=300), st.text(max_size=300), st.text(max_size=99).map("old 0\n\n{}".format)))
    def test_hostile_bytes_are_refused(self, body: str | bytes) -> None:
        with pytest.raises(MalformedSubmission):
            AddCheckpoint.parse(body)

    @unhurried
    @given(st.data())
    def test_a_changed_byte_is_refused_or_harmless(self, data: st.DataObject) -> None:
        body = submission(7, 12).format().encode()
        at, byte = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(0, 255))
        try:
            accepted = judge(known(7), AddCheckpoint.parse(body[:at] + bytes([byte]) + body[at + 1 :]), ORIGIN)
        except PcehrError:
            return
        assert (accepted.size, accepted.root) == (12, TREE.root(12))
