"""What each kind of race may come to, as sequential specifications (docs/spec.md, sections 4 and 7 to 9)."""

from __future__ import annotations

from tests.races.history import Operation

OK = "ok"
NOT_ENOUGH_PROXIES = "not_enough_proxies"
"""Nothing was disclosed: the proxies knew of a revocation or of new keys before the records service did, or were too
slow, which may be at any time."""


def revocation(revoked: bool, operation: Operation) -> bool | None:
    """A grant is disclosed under until it is revoked, and never again."""
    if operation.kind == "revoke":
        return True if operation.answer == OK else None
    if operation.answer == NOT_ENOUGH_PROXIES:
        return revoked
    return revoked if operation.answer == ("grant_revoked" if revoked else OK) else None


Answered = frozenset[tuple[str, str, int]]
"""Kind, id and time of each statement that has been accepted."""


def approval(done: Answered, operation: Operation) -> Answered | None:
    """A request may be approved more than once, but neither denied once it is approved nor approved once it is denied.
    The same statement has one effect, and every answer to it is the same."""
    same = {one for one in done if one[1] == operation.what}
    kinds = {kind for kind, _, _ in done}
    if same:
        return done if same == {_accepted(operation)} else None
    possible = "deny" not in kinds if operation.kind == "approve" else not kinds
    if possible:
        return done | {_accepted(operation)} if operation.answer == OK else None
    return done if operation.answer == "already_answered" else None


def _accepted(operation: Operation) -> tuple[str, str, int] | None:
    if operation.answer != OK or not isinstance(operation.detail, int):
        return None
    return operation.kind, operation.what, operation.detail


def rotation(winner: str, operation: Operation) -> str | None:
    """Of two next key-entries one becomes the next. Somebody who signs with the key before may be refused from then
    on; a service may also take it for as long as it keeps a chain of keys (`party_cache_seconds`)."""
    if operation.kind == "rotate":
        if winner in ("", operation.what):
            return operation.what if operation.answer == OK else None
        return winner if operation.answer in ("stale_key_entry", "broken_key_chain") else None
    if operation.answer in (OK, NOT_ENOUGH_PROXIES):
        return winner
    return winner if winner and operation.answer == "wrong_signer" else None


def amendment(chain: tuple[str, ...], operation: Operation) -> tuple[str, ...] | None:
    """A version follows the newest one. `what` is `<manifest> after <manifest>`; the chain names the manifests."""
    manifest, _, before = operation.what.partition(" after ")
    if manifest in chain:
        return chain if operation.answer == OK else None
    if chain[-1] == before:
        return (*chain, manifest) if operation.answer == OK else None
    return chain if operation.answer == "version_conflict" else None
