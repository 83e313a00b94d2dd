"""Proof files (C2SP tlog-proof): written, read, verified, and refused."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import PcehrError
from shared.transparency.checkpoints import cosign, origin_of, sign_checkpoint, verify_checkpoint, with_cosignatures
from shared.transparency.errors import BadCheckpointSignature, CheckpointMalformed, InclusionNotProven
from shared.transparency.merkle import EMPTY_ROOT, MAX_PATH, leaf_hash, prove_inclusion
from shared.transparency.proofs import HEADER, MAX_EXTRA_BYTES, MAX_PROOF_BYTES, TlogProof
from tests.unit.transparency.trees import DIDS, LOG_KEY, NOW, OTHER_LOG_KEY, WITNESSES, GrownTree, unhurried

TREE = GrownTree([bytes([number]) for number in range(11)])
ORIGIN = origin_of("records", LOG_KEY.verify_key)
NOTE = sign_checkpoint(LOG_KEY, "records", 11, TREE.root())
COSIGNED = with_cosignatures(NOTE, [cosign(verify_checkpoint(NOTE, ORIGIN), DIDS[0], WITNESSES[0], NOW)])
STEP = b64encode(EMPTY_ROOT).decode()


def proof(index: int = 6, extra: bytes | None = None) -> TlogProof:
    return TlogProof(index, prove_inclusion(index, 11, TREE.node), COSIGNED, extra)


@pytest.mark.parametrize("index", range(11))
def test_a_proof_verifies_without_the_log(index: int) -> None:
    text = proof(index).format()
    checkpoint = TlogProof.parse(text).verify(leaf_hash(TREE.leaves[index]), ORIGIN)
    assert (checkpoint.size, checkpoint.format()) == (11, COSIGNED)


def test_the_form() -> None:
    lines = "".join(f"{b64encode(step).decode()}\n" for step in proof().path)
    assert proof().format() == f"c2sp.org/tlog-proof@v1\nindex 6\n{lines}\n{COSIGNED}"
    assert proof(extra=b"salt").format() == f"c2sp.org/tlog-proof@v1\nextra c2FsdA==\nindex 6\n{lines}\n{COSIGNED}"


@pytest.mark.parametrize("extra", [None, b"x", b"\x00" * MAX_EXTRA_BYTES])
def test_a_proof_is_read_as_it_was_written(extra: bytes | None) -> None:
    written = proof(extra=extra)
    assert TlogProof.parse(written.format()) == TlogProof.parse(written.format().encode()) == written


def test_a_tree_of_one_leaf_has_no_proof_lines() -> None:
    note = sign_checkpoint(LOG_KEY, "records", 1, leaf_hash(b"a"))
    text = TlogProof(0, (), note).format()
    assert text == f"{HEADER}\nindex 0\n\n{note}"
    assert TlogProof.parse(text).verify(leaf_hash(b"a"), ORIGIN).size == 1


def test_another_leaf_index_or_log_is_refused() -> None:
    leaf = leaf_hash(TREE.leaves[6])
    with pytest.raises(InclusionNotProven):
        proof().verify(leaf_hash(b"other"), ORIGIN)
    with pytest.raises(InclusionNotProven):
        TlogProof(7, proof().path, COSIGNED).verify(leaf, ORIGIN)
    with pytest.raises(BadCheckpointSignature):
        proof().verify(leaf, origin_of("records", OTHER_LOG_KEY.verify_key))
    with pytest.raises(BadCheckpointSignature):
        TlogProof(6, proof().path, COSIGNED.replace("\n11\n", "\n12\n")).verify(leaf, ORIGIN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEADER,
        f"{HEADER}\nindex 6\n",
        f"{HEADER}\nindex 6\n{NOTE}",
        f"{HEADER}\n\n{NOTE}",
        f"c2sp.org/tlog-proof@v2\nindex 6\n\n{NOTE}",
        f"{HEADER} \nindex 6\n\n{NOTE}",
        f"{HEADER}\nindex 06\n\n{NOTE}",
        f"{HEADER}\nindex -6\n\n{NOTE}",
        f"{HEADER}\nindex {2**63}\n\n{NOTE}",
        f"{HEADER}\nindex\n\n{NOTE}",
        f"{HEADER}\nindex 6\nindex 6\n\n{NOTE}",
        f"{HEADER}\nindex 6\nextra AAAA\n\n{NOTE}",
        f"{HEADER}\nextra AAAA\n\n{NOTE}",
        f"{HEADER}\nextra \nindex 6\n\n{NOTE}",
        f"{HEADER}\nextra AAA\nindex 6\n\n{NOTE}",
        f"{HEADER}\nextra AAAA\nextra AAAA\nindex 6\n\n{NOTE}",
        f"{HEADER}\nextra {b64encode(bytes(MAX_EXTRA_BYTES + 1)).decode()}\nindex 6\n\n{NOTE}",
        f"{HEADER}\nindex 6\n{STEP[:-1]}\n\n{NOTE}",
        f"{HEADER}\nindex 6\n{(STEP + chr(10)) * (MAX_PATH + 1)}\n{NOTE}",
        f"{HEADER}\nindex 6\n\n\n{NOTE}",
        f"{HEADER}\nindex 6\n\n{NOTE}\n",
        f"{HEADER}\r\nindex 6\r\n\r\n{NOTE}",
        f"{HEADER}\nindex 6\n\n" + "x" * MAX_PROOF_BYTES,
    ],
)
def test_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(CheckpointMalformed):
        TlogProof.parse(text)


@pytest.mark.parametrize(
    ("index", "path", "extra"),
    [
        (-1, (), None),
        (2**63, (), None),
        (0, (EMPTY_ROOT,) * (MAX_PATH + 1), None),
        (0, (), b""),
        (0, (), bytes(MAX_EXTRA_BYTES + 1)),
    ],
)
def test_what_could_not_be_read_is_not_written(index: int, path: tuple[bytes, ...], extra: bytes | None) -> None:
    with pytest.raises(ValueError, match=r"bounds|empty"):
        TlogProof(index, path, NOTE, extra).format()


@unhurried
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300), st.text(max_size=99).map(f"{HEADER}\n{{}}".format)))
def test_hostile_bytes_are_refused(text: str | bytes) -> None:
    with pytest.raises(CheckpointMalformed):
        TlogProof.parse(text)


@unhurried
@given(st.data())
def test_a_changed_byte_never_proves_anything_else(data: st.DataObject) -> None:
    text = proof().format().encode()
    at, byte = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(0, 255))
    try:
        read = TlogProof.parse(text[:at] + bytes([byte]) + text[at + 1 :])
        checkpoint = read.verify(leaf_hash(TREE.leaves[6]), ORIGIN)
    except PcehrError:
        return
    assert (read.index, checkpoint.size, checkpoint.root) == (6, 11, TREE.root())
