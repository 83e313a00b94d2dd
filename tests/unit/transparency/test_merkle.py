"""The tree against the definitions of RFC 6962, known vectors, and every kind of forgery."""

from __future__ import annotations

from base64 import b64decode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.transparency import merkle
from shared.transparency.errors import ConsistencyNotProven, InclusionNotProven, NoSuchTree
from shared.transparency.merkle import (
    EMPTY_ROOT,
    MAX_PATH,
    MAX_SIZE,
    Frontier,
    Subtree,
    leaf_hash,
    node_hash,
    prove_consistency,
    prove_inclusion,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.unit.transparency.trees import KNOWN_LEAVES, GrownTree, datas, mth, path, proof, unhurried

ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
FLIPS = st.tuples(st.integers(0, 31), st.integers(1, 255))
SIZES = st.integers(1, MAX_SIZE)


def flip(data: bytes, where: tuple[int, int]) -> bytes:
    at, bits = where
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


@st.composite
def grown(draw: st.DrawFn, least: int = 1) -> GrownTree:
    return GrownTree(draw(st.lists(st.binary(max_size=64), min_size=least, max_size=70)))


class TestKnownVectors:
    """The tree of Certificate Transparency's tests; the proofs are in transparency-dev/merkle's test data too."""

    def test_the_root_of_no_leaves_is_the_hash_of_nothing(self) -> None:
        assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        assert Frontier().root() == EMPTY_ROOT == root_of(0, GrownTree([]).node)

    @pytest.mark.parametrize("size", range(1, 9))
    def test_roots(self, size: int) -> None:
        tree = GrownTree(KNOWN_LEAVES[:size])
        assert tree.frontier.root().hex() == ROOTS[size - 1] == root_of(size, tree.node).hex()

    @pytest.mark.parametrize(
        ("index", "size", "expected"),
        [
            (
                5,
                8,
                [
                    "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
                    "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
                    "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=",
                ],
            ),
            (
                1,
                5,
                [
                    "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=",
                    "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
                    "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
                ],
            ),
        ],
    )
    def test_inclusion(self, index: int, size: int, expected: list[str]) -> None:
        steps = prove_inclusion(index, size, GrownTree(KNOWN_LEAVES).node)
        assert steps == tuple(map(b64decode, expected))
        verify_inclusion(leaf_hash(KNOWN_LEAVES[index]), index, size, steps, bytes.fromhex(ROOTS[size - 1]))

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            (
                1,
                8,
                [
                    "lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=",
                    "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
                    "a0eq8p7jwq+a+Im8H7klTavTEXfxYjLdaqsDXKOb9uQ=",
                ],
            ),
            (
                6,
                8,
                [
                    "DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=",
                    "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
                    "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=",
                ],
            ),
            (
                2,
                5,
                ["Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=", "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms="],
            ),
        ],
    )
    def test_consistency(self, old: int, new: int, expected: list[str]) -> None:
        steps = prove_consistency(old, new, GrownTree(KNOWN_LEAVES).node)
        assert steps == tuple(map(b64decode, expected))
        verify_consistency(old, bytes.fromhex(ROOTS[old - 1]), new, bytes.fromhex(ROOTS[new - 1]), steps)


class TestAgainstTheDefinition:
    @pytest.mark.parametrize("size", range(1, 36))
    def test_every_proof_of_every_small_tree(self, size: int) -> None:
        tree = GrownTree([bytes([number]) for number in range(size)])
        root = tree.root()
        for index in range(size):
            steps = prove_inclusion(index, size, tree.node)
            assert list(steps) == path(index, tree.leaves)
            verify_inclusion(leaf_hash(tree.leaves[index]), index, size, steps, root)
        for old in range(1, size):
            steps = prove_consistency(old, size, tree.node)
            assert list(steps) == proof(old, tree.leaves)
            verify_consistency(old, tree.root(old), size, root, steps)

    @unhurried
    @given(datas)
    def test_the_frontier_has_the_root_of_the_definition(self, leaves: list[bytes]) -> None:
        tree = GrownTree(leaves)
        assert tree.frontier.size == len(leaves)
        assert tree.frontier.root() == mth(leaves) == root_of(len(leaves), tree.node)

    @unhurried
    @given(grown(), st.data())
    def test_proofs_in_a_tree_that_has_grown_since(self, tree: GrownTree, data: st.DataObject) -> None:
        size = data.draw(st.integers(1, len(tree.leaves)))
        index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
        steps = prove_inclusion(index, size, tree.node)
        assert list(steps) == path(index, tree.leaves[:size])
        verify_inclusion(leaf_hash(tree.leaves[index]), index, size, steps, tree.root(size))
        steps = prove_consistency(old, size, tree.node)
        verify_consistency(old, tree.root(old), size, tree.root(size), steps)

    @unhurried
    @given(grown(), st.data())
    def test_what_is_needed_is_what_is_asked_for_and_complete(self, tree: GrownTree, data: st.DataObject) -> None:
        size = data.draw(st.integers(1, len(tree.leaves)))
        index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
        asked: set[tuple[int, int]] = set()

        def node(level: int, position: int) -> bytes:
            assert (position + 1) << level <= size
            asked.add((level, position))
            return tree.node(level, position)

        for prove, needed in [
            (lambda: prove_inclusion(index, size, node), merkle.needed_for_inclusion(index, size)),
            (lambda: prove_consistency(old, size, node), merkle.needed_for_consistency(old, size)),
            (lambda: root_of(size, node), merkle.needed_for_root(size)),
            (lambda: Frontier.restore(size, node), merkle.needed_for_root(size)),
        ]:
            asked.clear()
            prove()
            assert asked == needed

    @unhurried
    @given(SIZES, st.data())
    def test_bounds_hold_in_trees_of_any_size(self, size: int, data: st.DataObject) -> None:
        index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
        assert len(merkle.inclusion_subtrees(index, size)) <= 63
        assert len(merkle.consistency_subtrees(old, size)) <= MAX_PATH
        assert len(merkle.needed_for_inclusion(index, size)) <= 63 * 2
        assert len(merkle.needed_for_consistency(old, size)) <= 63 * 2
        assert len(merkle.needed_for_root(size)) == size.bit_count()
        for level, position in merkle.needed_for_inclusion(index, size) | merkle.needed_for_consistency(old, size):
            assert 0 <= position << level < (position + 1) << level <= size


class TestForgedInclusion:
    @unhurried
    @given(grown(), FLIPS, st.data())
    def test_a_changed_part_is_refused(self, tree: GrownTree, where: tuple[int, int], data: st.DataObject) -> None:
        size = len(tree.leaves)
        index = data.draw(st.integers(0, size - 1))
        leaf, root = leaf_hash(tree.leaves[index]), tree.root()
        steps = list(prove_inclusion(index, size, tree.node))
        forged = [(flip(leaf, where), index, size, steps, root), (leaf, index, size, steps, flip(root, where))]
        for at, step in enumerate(steps):
            forged.append((leaf, index, size, [*steps[:at], flip(step, where), *steps[at + 1 :]], root))
            forged.append((leaf, index, size, [*steps[:at], *steps[at + 1 :]], root))
        for at in range(len(steps) + 1):
            forged.append((leaf, index, size, [*steps[:at], leaf, *steps[at:]], root))
        for attempt in forged:
            with pytest.raises(InclusionNotProven):
                verify_inclusion(*attempt)

    @pytest.mark.parametrize("size", range(1, 25))
    def test_another_index_is_refused(self, size: int) -> None:
        tree = GrownTree([bytes([number]) for number in range(size)])
        for index in range(size):
            steps = prove_inclusion(index, size, tree.node)
            for other in set(range(-1, size + 2)) - {index}:
                with pytest.raises(InclusionNotProven):
                    verify_inclusion(leaf_hash(tree.leaves[index]), other, size, steps, tree.root())

    def test_a_root_does_not_fix_the_size(self) -> None:
        """As in RFC 9162; a size is believed because the log has signed it together with the root."""
        tree = GrownTree([b"a", b"b", b"c"])
        steps = prove_inclusion(0, 3, tree.node)
        verify_inclusion(leaf_hash(b"a"), 0, 4, steps, tree.root())
        for claimed in (1, 2, 5, 8):
            with pytest.raises(InclusionNotProven):
                verify_inclusion(leaf_hash(b"a"), 0, claimed, steps, tree.root())

    @unhurried
    @given(grown(least=2), st.data())
    def test_the_path_of_a_later_tree_is_refused_under_the_root_of_an_earlier(
        self, tree: GrownTree, data: st.DataObject
    ) -> None:
        size = len(tree.leaves)
        earlier = data.draw(st.integers(1, size - 1))
        index = data.draw(st.integers(0, earlier - 1))
        steps = prove_inclusion(index, size, tree.node)
        for claimed in (earlier, size):
            with pytest.raises(InclusionNotProven):
                verify_inclusion(leaf_hash(tree.leaves[index]), index, claimed, steps, tree.root(earlier))

    @pytest.mark.parametrize(
        ("index", "size"), [(0, 0), (-1, 8), (8, 8), (5, -8), (2**63, 2**63 + 1), (0, 2**63), (5, 4)]
    )
    def test_positions_that_no_tree_has_are_refused(self, index: int, size: int) -> None:
        with pytest.raises(InclusionNotProven):
            verify_inclusion(EMPTY_ROOT, index, size, [], EMPTY_ROOT)

    def test_a_node_is_not_a_leaf(self) -> None:
        """The prefixes of RFC 6962 keep the inner node over two leaves from passing as one leaf of that data."""
        tree = GrownTree([b"a", b"b", b"c", b"d"])
        inner = tree.node(1, 0) + tree.node(1, 1)
        with pytest.raises(InclusionNotProven):
            verify_inclusion(leaf_hash(inner), 0, 1, [], tree.root())
        assert leaf_hash(inner) != node_hash(tree.node(1, 0), tree.node(1, 1)) == tree.root()

    @pytest.mark.parametrize("bad", [b"", b"\x00" * 31, b"\x00" * 33, "0" * 32])
    def test_hashes_of_another_length_are_refused(self, bad: bytes) -> None:
        tree = GrownTree([b"a", b"b"])
        a, b, root = tree.node(0, 0), tree.node(0, 1), tree.root()
        verify_inclusion(a, 0, 2, [b], root)
        for attempt in [(bad, 0, 2, [b], root), (a, 0, 2, [bad], root), (a, 0, 2, [b], bad)]:
            with pytest.raises(InclusionNotProven):
                verify_inclusion(*attempt)

    def test_a_path_beyond_the_bound_is_refused_before_it_is_hashed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: bytes) -> bytes:
            raise AssertionError("hashed")

        monkeypatch.setattr(merkle, "node_hash", refuse)
        with pytest.raises(InclusionNotProven):
            verify_inclusion(EMPTY_ROOT, 0, MAX_SIZE, [EMPTY_ROOT] * (MAX_PATH + 1), EMPTY_ROOT)
        with pytest.raises(ConsistencyNotProven):
            verify_consistency(1, EMPTY_ROOT, MAX_SIZE, EMPTY_ROOT, [EMPTY_ROOT] * (MAX_PATH + 1))

    def test_the_leaf_of_a_tree_of_one_has_an_empty_path(self) -> None:
        verify_inclusion(leaf_hash(b"a"), 0, 1, [], leaf_hash(b"a"))
        with pytest.raises(InclusionNotProven):
            verify_inclusion(leaf_hash(b"a"), 0, 1, [leaf_hash(b"a")], leaf_hash(b"a"))


class TestForgedConsistency:
    @unhurried
    @given(grown(least=2), FLIPS, st.data())
    def test_a_changed_part_is_refused(self, tree: GrownTree, where: tuple[int, int], data: st.DataObject) -> None:
        new = len(tree.leaves)
        old = data.draw(st.integers(1, new - 1))
        before, after = tree.root(old), tree.root()
        steps = list(prove_consistency(old, new, tree.node))
        forged = [
            (old, flip(before, where), new, after, steps),
            (old, before, new, flip(after, where), steps),
            (old, after, new, before, steps),
            (new, after, old, before, steps),
            (old, before, new, before, steps),
            (old, before, new, after, []),
        ]
        for at, step in enumerate(steps):
            forged.append((old, before, new, after, [*steps[:at], flip(step, where), *steps[at + 1 :]]))
            forged.append((old, before, new, after, [*steps[:at], *steps[at + 1 :]]))
        for at in range(len(steps) + 1):
            forged.append((old, before, new, after, [*steps[:at], before, *steps[at:]]))
        for attempt in forged:
            with pytest.raises(ConsistencyNotProven):
                verify_consistency(*attempt)

    @pytest.mark.parametrize("new", range(2, 25))
    def test_another_old_size_is_refused(self, new: int) -> None:
        tree = GrownTree([bytes([number]) for number in range(new)])
        for old in range(1, new):
            steps = prove_consistency(old, new, tree.node)
            for other in set(range(-1, new + 2)) - {old}:
                with pytest.raises(ConsistencyNotProven):
                    verify_consistency(other, tree.root(old), new, tree.root(), steps)

    @unhurried
    @given(grown(least=2), st.data())
    def test_a_tree_in_which_one_leaf_was_changed_is_refused(self, tree: GrownTree, data: st.DataObject) -> None:
        new = len(tree.leaves)
        old = data.draw(st.integers(1, new - 1))
        at = data.draw(st.integers(0, old - 1))
        changed = GrownTree([*tree.leaves[:at], tree.leaves[at] + b"!", *tree.leaves[at + 1 :]])
        for steps in (prove_consistency(old, new, changed.node), prove_consistency(old, new, tree.node)):
            with pytest.raises(ConsistencyNotProven):
                verify_consistency(old, tree.root(old), new, changed.root(), steps)

    def test_from_no_leaves_only_the_empty_proof_is_accepted(self) -> None:
        root = GrownTree([b"a", b"b"]).root()
        verify_consistency(0, EMPTY_ROOT, 2, root, [])
        with pytest.raises(ConsistencyNotProven):
            verify_consistency(0, EMPTY_ROOT, 2, root, [root])

    def test_from_no_leaves_only_the_empty_root_is_accepted(self) -> None:
        root = GrownTree([b"a", b"b"]).root()
        with pytest.raises(ConsistencyNotProven):
            verify_consistency(0, root, 2, root, [])
        with pytest.raises(ConsistencyNotProven):
            verify_consistency(0, root, 0, root, [])
        verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])

    def test_between_equal_sizes_only_the_same_root_and_the_empty_proof_are_accepted(self) -> None:
        root, other = GrownTree([b"a", b"b"]).root(), GrownTree([b"a", b"c"]).root()
        verify_consistency(2, root, 2, root, [])
        for after, steps in [(other, []), (root, [root]), (root, [leaf_hash(b"a"), leaf_hash(b"b")])]:
            with pytest.raises(ConsistencyNotProven):
                verify_consistency(2, root, 2, after, steps)

    @pytest.mark.parametrize(("old", "new"), [(2, 1), (-1, 2), (-2, -1), (1, 2**63), (2**63, 2**63)])
    def test_sizes_that_no_tree_has_are_refused(self, old: int, new: int) -> None:
        with pytest.raises(ConsistencyNotProven):
            verify_consistency(old, EMPTY_ROOT, new, EMPTY_ROOT, [])

    @pytest.mark.parametrize("bad", [b"", b"\x00" * 31, b"\x00" * 33])
    def test_hashes_of_another_length_are_refused(self, bad: bytes) -> None:
        tree = GrownTree([b"a", b"b"])
        before, after, step = tree.root(1), tree.root(2), tree.node(0, 1)
        verify_consistency(1, before, 2, after, [step])
        for attempt in [(1, bad, 2, after, [step]), (1, before, 2, bad, [step]), (1, before, 2, after, [bad])]:
            with pytest.raises(ConsistencyNotProven):
                verify_consistency(*attempt)

    @unhurried
    @given(
        st.integers(-1, 80),
        st.binary(min_size=32, max_size=32),
        st.integers(-1, 80),
        st.binary(min_size=32, max_size=32),
        st.lists(st.binary(min_size=32, max_size=32), max_size=8),
    )
    def test_random_proofs_never_hold(
        self, old: int, before: bytes, new: int, after: bytes, steps: list[bytes]
    ) -> None:
        assume(before != after and EMPTY_ROOT not in (before, after))
        with pytest.raises(ConsistencyNotProven):
            verify_consistency(old, before, new, after, steps)


class TestFrontier:
    @unhurried
    @given(datas)
    def test_it_comes_back_from_its_bytes_its_peaks_and_its_nodes(self, leaves: list[bytes]) -> None:
        tree = GrownTree(leaves)
        frontier = tree.frontier
        again = [
            Frontier.from_bytes(frontier.to_bytes()),
            Frontier(frontier.size, frontier.peaks),
            Frontier.restore(frontier.size, tree.node),
        ]
        completed = frontier.append(leaf_hash(b"one more"))
        for other in again:
            assert other.append(leaf_hash(b"one more")) == completed
            assert (other.size, other.peaks, other.root()) == (frontier.size, frontier.peaks, frontier.root())

    def test_an_append_reports_each_node_that_it_completes(self) -> None:
        frontier = Frontier()
        a, b, c, d = (leaf_hash(data) for data in (b"a", b"b", b"c", b"d"))
        ab, cd = node_hash(a, b), node_hash(c, d)
        assert [frontier.append(leaf) for leaf in (a, b, c, d)] == [
            [],
            [(1, 0, ab)],
            [],
            [(1, 1, cd), (2, 0, node_hash(ab, cd))],
        ]

    @pytest.mark.parametrize(
        ("size", "peaks"),
        [
            (0, [EMPTY_ROOT]),
            (1, []),
            (3, [EMPTY_ROOT]),
            (3, [EMPTY_ROOT, b"short"]),
            (-1, [EMPTY_ROOT]),
            (2**63, [EMPTY_ROOT]),
        ],
    )
    def test_peaks_that_do_not_fit_the_size_are_refused(self, size: int, peaks: list[bytes]) -> None:
        with pytest.raises(NoSuchTree):
            Frontier(size, peaks)

    @pytest.mark.parametrize(
        "data", [b"", b"\x00" * 7, b"\x00" * 7 + b"\x01", b"\x00" * 41, b"\x00" * 7 + b"\x01" + b"\x00" * 31]
    )
    def test_other_bytes_are_refused(self, data: bytes) -> None:
        with pytest.raises(NoSuchTree):
            Frontier.from_bytes(data)

    def test_a_leaf_that_is_no_hash_is_refused(self) -> None:
        with pytest.raises(NoSuchTree):
            Frontier().append(b"data instead of its hash")

    def test_a_full_tree_takes_no_leaf(self) -> None:
        frontier = Frontier(MAX_SIZE, [EMPTY_ROOT] * 63)
        with pytest.raises(NoSuchTree):
            frontier.append(EMPTY_ROOT)
        assert frontier.size == MAX_SIZE


class TestRanges:
    def test_nodes_of_a_range(self) -> None:
        assert merkle.nodes_of(0, 0) == []
        assert merkle.nodes_of(0, 7) == [(2, 0), (1, 2), (0, 6)]
        assert merkle.nodes_of(8, 11) == [(1, 4), (0, 10)]

    @pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (1, 3), (2, 5), (4, 9), (0, 2**63)])
    def test_a_range_that_is_no_subtree_is_refused(self, start: int, end: int) -> None:
        with pytest.raises(NoSuchTree):
            merkle.nodes_of(start, end)

    def test_subtrees_in_the_order_of_the_proof(self) -> None:
        assert merkle.inclusion_subtrees(4, 7) == [Subtree(5, 6), Subtree(6, 7), Subtree(0, 4)]
        assert merkle.consistency_subtrees(3, 7) == [Subtree(2, 3), Subtree(3, 4), Subtree(0, 2), Subtree(4, 7)]
        assert merkle.consistency_subtrees(4, 7) == [Subtree(4, 7)]
        assert merkle.consistency_subtrees(0, 7) == merkle.consistency_subtrees(7, 7) == []

    @pytest.mark.parametrize(("index", "size"), [(0, 0), (7, 7), (-1, 7), (0, 2**63)])
    def test_an_inclusion_that_no_tree_has_is_refused(self, index: int, size: int) -> None:
        with pytest.raises(NoSuchTree):
            prove_inclusion(index, size, GrownTree([b"a"] * 8).node)

    @pytest.mark.parametrize(("old", "new"), [(8, 7), (-1, 7), (0, 2**63)])
    def test_a_consistency_that_no_trees_have_is_refused(self, old: int, new: int) -> None:
        with pytest.raises(NoSuchTree):
            prove_consistency(old, new, GrownTree([b"a"] * 8).node)
