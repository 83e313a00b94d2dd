"""A patient's scopes: their names, which only clients know, and the keys published for them, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from client.errors import ScopeKeyRolledBack, UnknownScope, VerificationFailed
from client.keyring import check_scope_name
from client.session import Session
from client.verification import check_scope_key
from shared.crypto.umbral import PublicKey
from shared.encoding import from_b64url
from shared.statements import ScopeKey, Verified
from shared.transparency.entries import key_entry_data, scope_label
from shared.transparency.merkle import leaf_hash
from shared.wire import REGISTRY_AUDIENCE

_BATCH = 100
"""Scope-keys published in one request; the registry takes 200."""


class OwnScopes:
    """The published scope-keys of this patient and the names that are known for them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names: dict[str, str] = {}
        self._epochs: dict[str, int] | None = None

    def learn(self, names: Iterable[str]) -> None:
        """Take note of names, from which the scopes' ids follow."""
        for name in names:
            self._names[self._session.keyring.scope_id(name)] = name

    @property
    def names(self) -> Mapping[str, str]:
        """Names by scope id."""
        return self._names

    def name_of(self, scope_id: str) -> str:
        """The name behind an id; raises `UnknownScope`."""
        name = self._names.get(scope_id)
        if name is None:
            raise UnknownScope(
                f"The scope {scope_id} is one whose name this client does not know; restore with the names you used."
            )
        return name

    async def epochs(self, *, fresh: bool = False) -> dict[str, int]:
        """The newest published epoch of each scope, by id; raises `ScopeKeyRolledBack`.

        None is older than what this client has seen: in the registry before, or in a record, a grant or a revocation
        that this patient has signed, on whatever machine.
        """
        session = self._session
        if self._epochs is not None and not fresh:
            # What the patient has signed and this client has met since then may be of a newer epoch.
            seen = session.state.epochs_of(session.did)
            fresh = any(epoch > self._epochs.get(scope_id, -1) for scope_id, epoch in seen.items())
        if self._epochs is None or fresh:
            # What was known before must not be used on if the look that replaces it is refused.
            self._epochs = None
            me = await session.me()
            newest: dict[str, Verified[ScopeKey]] = {}
            async for token in session.platform.scope_keys(await session.credentials(), session.did):
                statement = check_scope_key(token, me)
                payload = statement.payload
                known = newest.get(payload.scope)
                if known is None or payload.epoch > known.payload.epoch:
                    newest[payload.scope] = statement
            for scope_id, epoch in session.state.epochs_of(session.did).items():
                if scope_id not in newest:
                    raise ScopeKeyRolledBack(f"The registry does not show a scope that has reached epoch {epoch}.")
            for statement in newest.values():
                self._check_derived(statement.payload)
            await session.logs.prove_own_keys([scope_leaf(statement) for statement in newest.values()])
            for statement in newest.values():
                session.state.note_epoch(session.did, statement.payload.scope, statement.payload.epoch)
            session.state.save_if_changed()
            self._epochs = {scope_id: statement.payload.epoch for scope_id, statement in newest.items()}
        return self._epochs

    async def ensure(self, names: Iterable[str]) -> dict[str, int]:
        """Publish epoch 0 of every scope that has no key yet; the newest epoch of each, by name."""
        wanted = [check_scope_name(name) for name in dict.fromkeys(names)]
        self.learn(wanted)
        epochs = await self.epochs()
        keyring = self._session.keyring
        await self.publish({name: 0 for name in wanted if keyring.scope_id(name) not in epochs})
        epochs = await self.epochs()
        return {name: epochs[keyring.scope_id(name)] for name in wanted}

    async def publish(self, epochs: Mapping[str, int]) -> None:
        """Publish the key of these epochs, by the scopes' names. An epoch that is there already stays as it is."""
        names = list(epochs)
        session = self._session
        for start in range(0, len(names), _BATCH):
            tokens = []
            for name in names[start : start + _BATCH]:
                statement = await session.sign(
                    ScopeKey,
                    REGISTRY_AUDIENCE,
                    scope=session.keyring.scope_id(name),
                    epoch=epochs[name],
                    delegating_key=session.keyring.delegating(name, epochs[name]).public_key().b64,
                )
                tokens.append(statement.token)
            await session.platform.publish_scope_keys(await session.credentials(), tokens)
            # Acknowledged means published: a registry that drops one is caught at the next look.
            for name in names[start : start + _BATCH]:
                session.state.raise_epoch(session.did, session.keyring.scope_id(name), epochs[name])
        if names:
            await self.epochs(fresh=True)

    def public_key(self, name: str, epoch: int) -> PublicKey:
        """The delegating key that records of this scope and epoch are encrypted to."""
        return self._session.keyring.delegating(name, epoch).public_key()

    def _check_derived(self, payload: ScopeKey) -> None:
        """The registry's newest key must be ours; one signed with our key but not derived cannot be opened later."""
        name = self._names.get(payload.scope)
        if name is not None and payload.delegating_key != self.public_key(name, payload.epoch).b64:
            raise VerificationFailed("A published scope-key is not the one that the recovery words give.")


async def current_scope_key(session: Session, patient_did: str, scope_id: str) -> Verified[ScopeKey]:
    """The newest key of a patient's scope, verified, for authors; raises `UnknownScope` or a `VerificationFailed`.

    It is never older than an epoch that this client has seen: `ScopeKeyRolledBack`.
    """
    patient = await session.party(patient_did)
    newest: Verified[ScopeKey] | None = None
    async for token in session.platform.scope_keys(await session.credentials(), patient_did, scope_id):
        patient = await session.issuer_of(token, ScopeKey)
        if patient.did != patient_did:
            raise VerificationFailed("The registry shows a scope-key of somebody else.")
        statement = check_scope_key(token, patient)
        if statement.payload.scope != scope_id:
            raise VerificationFailed("The registry shows the key of another scope.")
        if newest is None or statement.payload.epoch > newest.payload.epoch:
            newest = statement
    if newest is None:
        raise UnknownScope("The patient has published no key for this scope.")
    await session.logs.prove_keys({scope_leaf(newest): patient_did})
    session.state.note_epoch(patient_did, scope_id, newest.payload.epoch)
    session.state.save_if_changed()
    return newest


def delegating_key_of(statement: Verified[ScopeKey]) -> PublicKey:
    """The delegating key that a verified scope-key names."""
    return PublicKey.from_bytes(from_b64url(statement.payload.delegating_key, 33))


def scope_leaf(statement: Verified[ScopeKey]) -> bytes:
    """The leaf that a scope-key has in the registry's log."""
    payload = statement.payload
    return leaf_hash(key_entry_data(scope_label(payload.iss, payload.scope), statement.id))
