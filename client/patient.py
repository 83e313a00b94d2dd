"""What a patient can do: keep records, see who asks, give access and take it away.

Plain values in, plain values out (`client.reports`, `client.records`). Every method verifies what the services show
and raises a `ClientError` with a stable code and a hint. Calling a method again after it was interrupted is safe.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from client.consents import Consents
from client.errors import REFUSALS, InvalidRecord, SharesUndelivered, UnknownRecord
from client.granting import pin_proxies, pinned_proxies
from client.keyring import check_scope_name
from client.own_records import OwnRecords
from client.own_settings import OwnSettings, with_scopes
from client.records import NewRecord
from client.reports import (
    GrantReport,
    IncomingRequest,
    OpenedRecord,
    Override,
    Problem,
    RecordSummary,
    RestoreReport,
    RevocationReport,
    ScopeInfo,
    Settings,
    StoredRecord,
)
from client.scope_keys import OwnScopes
from client.session import Session
from client.settings_record import SETTINGS_SCOPE
from client.uploads import Progress
from shared.identity import VerifiedParty
from shared.schemas.records import RequestState
from shared.wire import MAX_SHARES, Action, DenialReason, Purpose, Role

__all__ = [
    "GrantReport",
    "IncomingRequest",
    "NewRecord",
    "OpenedRecord",
    "Override",
    "Patient",
    "Problem",
    "RecordSummary",
    "RestoreReport",
    "RevocationReport",
    "ScopeInfo",
    "Settings",
    "StoredRecord",
]


class Patient:
    """A patient's side of the platform.

    `known_scopes` are the names (with titles, where it is a mapping) of scopes that every client knows; names beyond
    these are kept in the encrypted settings record, so that the recovery words alone bring everything back.
    """

    def __init__(self, session: Session, *, known_scopes: Mapping[str, str] | Iterable[str] = ()) -> None:
        self.session = session
        self._known: dict[str, str] = {}
        self._scopes = OwnScopes(session)
        self._records = OwnRecords(session, self._scopes)
        self._settings = OwnSettings(session, self._scopes, self._records)
        self._consents = Consents(session, self._scopes, self._records.manifests)
        self._learn(known_scopes)

    # --- the party itself -------------------------------------------------------------------------------------

    async def sign_up(self) -> VerifiedParty:
        """Register with the registry; doing it again has no effect."""
        return await self.session.sign_up(Role.PATIENT)

    async def restore(self, known_scopes: Mapping[str, str] | Iterable[str] | None = None) -> RestoreReport:
        """Find everything again with nothing but the seed: settings, scopes and their epochs, records, grants.

        Raises `NotSignedUp` where the registry does not know this party, and `ScopeKeyRolledBack` where it shows older
        keys than the records, grants and revocations that this patient has signed.
        """
        self._learn(known_scopes or ())
        # The registry must know this party already: restoring never registers anybody.
        await self.session.me(fresh=True)
        await self.sign_up()
        await self.settings()
        epochs = await self._scopes.epochs(fresh=True)
        scopes = await self.scopes()
        grants = await self.grants()
        pending = await self.inbox(RequestState.PENDING)
        # Once more, because records, grants and revocations have said by now how far the scopes had come.
        await self._scopes.epochs()
        if not self.session.state.proxies:
            self._pin_from(grants)
        names = self._scopes.names
        return RestoreReport(
            scopes=scopes,
            unknown_scopes=sorted(scope_id for scope_id in epochs if scope_id not in names),
            records=sum(scope.records for scope in scopes),
            grants=len(grants),
            pending_requests=len(pending),
        )

    # --- scopes and settings ----------------------------------------------------------------------------------

    async def scopes(self) -> list[ScopeInfo]:
        """The published scopes whose names are known, by name, with the number of records in each."""
        await self._settings.load()
        epochs = await self._scopes.epochs(fresh=True)
        counts: dict[str, int] = {}
        for record in await self._records.manifests():
            scope_id = record.manifest.payload.scope
            counts[scope_id] = counts.get(scope_id, 0) + 1
        found = []
        for scope_id, epoch in epochs.items():
            name = self._scopes.names.get(scope_id)
            if name is not None and name != SETTINGS_SCOPE:
                found.append(await self._info(name, epoch, counts.get(scope_id, 0)))
        return sorted(found, key=lambda scope: scope.name)

    async def add_scope(self, name: str, title: str | None = None) -> ScopeInfo:
        """Publish the first key of a scope; a name that is not a common one is kept in the settings record."""
        await self._settings.load()
        self._refuse_settings_scope(name)
        if name not in self._known:
            await self._settings.change(lambda settings: with_scopes(settings, {name: title}))
        epoch = (await self._scopes.ensure([name]))[name]
        return await self._info(name, epoch, 0)

    async def settings(self) -> Settings:
        """The patient's settings, as the settings record has them; empty ones if there is no such record yet."""
        return await self._settings.read()

    async def set_override(self, override: Override) -> Settings:
        """Add a filing rule of the patient's own; the newest one goes first. One that is there already stays."""
        check_scope_name(override.scope)
        return await self._settings.change(
            lambda settings: (
                settings
                if override in settings.overrides
                else replace(settings, overrides=(override, *settings.overrides))
            )
        )

    async def remove_override(self, override: Override) -> Settings:
        """Take a filing rule away; one that is not there is no error."""
        return await self._settings.change(
            lambda settings: replace(
                settings, overrides=tuple(known for known in settings.overrides if known != override)
            )
        )

    # --- records ----------------------------------------------------------------------------------------------

    async def add_records(self, records: list[NewRecord], progress: Progress | None = None) -> list[StoredRecord]:
        """Store new records, each under a new id; the answers are in order. `progress` hears (stored, all).

        Keys of scopes that are used for the first time are published before. Batches of up to 100 are stored as a
        whole or not at all; when an error ends the upload, what `progress` reported stays stored.
        """
        names = {record.scope for record in records}
        await self._prepare(names)
        return await self._records.add(records, progress)

    async def add_version(self, record_id: str, record: NewRecord) -> StoredRecord:
        """Store a new version of a record, in whatever scope `record` names; the earlier versions stay."""
        await self._prepare({record.scope})
        newest = (await self._records.versions(record_id))[-1]
        return await self._records.add_after(newest, record)

    async def records(self) -> list[RecordSummary]:
        """All records, newest version of each, with their headers; verified.

        A record that does not verify or open is listed with its problem, so that one bad record hides no other.
        """
        await self._settings.load()
        return await self._records.summaries()

    async def read_record(
        self, record_id: str, version: int | None = None, *, large_to: Path | None = None
    ) -> OpenedRecord:
        """One record, opened: the newest version, or an earlier one if asked for. Raises `UnknownRecord`.

        The whole chain of versions is checked, so that an earlier version is shown as such and never by mistake. What
        was before a version that nobody allowed can still be read, by its number.
        """
        await self._settings.load()
        versions = await self._records.versions(record_id, wanted=version)
        if version is None:
            return await self._records.open(versions[-1], large_to)
        for one in versions:
            if one.manifest.payload.version == version:
                return await self._records.open(one, large_to)
        raise UnknownRecord(f"The record has no version {version}.")

    async def export(
        self,
        progress: Progress | None = None,
        *,
        scopes: Iterable[str] | None = None,
        problems: list[Problem] | None = None,
        large_to: Path | None = None,
    ) -> list[OpenedRecord]:
        """All records opened, newest version of each, or those in `scopes`.

        What does not verify or open goes to `problems` where a list is given; otherwise the first one is raised.
        """
        await self._settings.load()
        wanted = None if scopes is None else {self.session.keyring.scope_id(name) for name in scopes}
        return await self._records.export(progress, wanted=wanted, problems=problems, large_to=large_to)

    # --- consent (client.consents) ------------------------------------------------------------------------------

    async def inbox(self, state: RequestState | None = None) -> list[IncomingRequest]:
        """Disclosure requests to this patient, newest first, or only those in one state; verified and opened."""
        await self._settings.load()
        return await self._consents.inbox(state)

    async def deny(self, request_id: str, reason: DenialReason = DenialReason.UNSPECIFIED) -> None:
        """Refuse a request. Raises `UnknownRequest`, or `already_answered` from the service."""
        await self._consents.deny(request_id, reason)

    async def approve(
        self,
        request_id: str,
        *,
        scopes: Iterable[str] | None = None,
        actions: Iterable[Action] | None = None,
        expires: int | None = None,
        records: Iterable[str] | None = None,
        threshold: int | None = None,
        wait: bool = True,
    ) -> GrantReport:
        """Answer a request with a grant, as it was asked or narrowed; asking for more raises `WiderThanRequested`.

        `expires` is when the grant ends, in seconds since the epoch (90 days from now unless given). `records` limits
        it to these records. With `wait` it waits for enough proxies to prove that they have their share.
        """
        await self._settings.load()
        return await self._consents.approve(
            request_id,
            scopes=None if scopes is None else list(scopes),
            actions=None if actions is None else list(actions),
            expires=expires,
            records=None if records is None else list(records),
            threshold=threshold,
            wait=wait,
        )

    async def share(
        self,
        recipient_did: str,
        *,
        scopes: Iterable[str],
        actions: Iterable[Action],
        purpose: Purpose,
        expires: int,
        records: Iterable[str] | None = None,
        threshold: int | None = None,
        wait: bool = True,
    ) -> GrantReport:
        """Give a recipient access without having been asked. Raises `UnknownScope` for a scope that does not exist."""
        await self._settings.load()
        return await self._consents.share(
            recipient_did,
            scopes=list(scopes),
            actions=list(actions),
            purpose=purpose,
            expires=expires,
            records=None if records is None else list(records),
            threshold=threshold,
            wait=wait,
        )

    async def grants(self) -> list[GrantReport]:
        """All grants this patient has given, newest first, as far as their receipts prove them.

        Also those that only this client remembers. What the records service hides is in the `problem` of a grant.
        """
        await self._settings.load()
        return await self._consents.grants()

    async def grant_ids(self) -> list[str]:
        """Ids of all grants, for ending them: also while the records service hides them or refuses its list."""
        await self.session.me_for_less()
        return await self._consents.grant_ids()

    async def grant(self, grant_id: str) -> GrantReport:
        """One grant; raises `UnknownGrant`."""
        await self._settings.load()
        return await self._consents.grant(grant_id)

    async def revoke(self, grant_id: str, *, assumed_liars: int = 0, wait_seconds: float = 10) -> RevocationReport:
        """End a grant, and the grants that only continue it, and say how well that is settled (`client.revoking`).

        `assumed_liars` proxies may say that they erased their share and lie. Safe to repeat at any time. What the
        records service or the registry hide or refuse keeps no grant alive that this client remembers.
        """
        await self.session.me_for_less()
        with contextlib.suppress(*REFUSALS):
            # Without them a scope of the patient's own naming gets no new epoch, and the grant ends all the same.
            await self._settings.load()
        return await self._consents.revoke(grant_id, assumed_liars=assumed_liars, wait_seconds=wait_seconds)

    async def revocation_status(self, grant_id: str, *, assumed_liars: int = 0) -> RevocationReport:
        """How far the revocation of a grant is by now; changes nothing. Raises `UnknownGrant`."""
        with contextlib.suppress(*REFUSALS):
            await self._settings.load()
        return await self._consents.revocation_status(grant_id, assumed_liars=assumed_liars)

    async def rotate_keys(self, *, force: bool = False) -> VerifiedParty:
        """Change all keys (`client.session.Session.rotate_keys`).

        Raises `SharesUndelivered` while a proxy has not stored its share of a live grant, because a proxy refuses a
        grant that is signed with a key of before. With `force` it is done all the same: such a grant stays as it is
        then, and is to be given anew for those proxies. A grant that the records service does not show waits for
        nothing there.
        """
        waiting = [
            grant.id for grant in await self.grants() if grant.live and grant.shown and grant.stored < grant.shares
        ]
        if waiting and not force:
            raise SharesUndelivered(f"Proxies still wait for their share of {', '.join(waiting)}.")
        return await self.session.rotate_keys()

    async def proxies(self) -> list[VerifiedParty]:
        """The pinned proxies, verified, in their order; none before the first grant to read."""
        return list(await pinned_proxies(self.session))

    async def pin_proxies(self, dids: Iterable[str] | None = None) -> list[str]:
        """Choose the proxies that shares of later grants go to: these, or all of the directory up to 16."""
        return await pin_proxies(self.session, None if dids is None else list(dids))

    # --- how ----------------------------------------------------------------------------------------------------

    def _learn(self, scopes: Mapping[str, str] | Iterable[str]) -> None:
        titles = dict(scopes) if isinstance(scopes, Mapping) else {name: name for name in scopes}
        for name in titles:
            check_scope_name(name)
        self._known |= titles
        self._scopes.learn([SETTINGS_SCOPE, *titles])

    async def _prepare(self, scopes: set[str]) -> None:
        """See that these scopes may be filed under, and that their names outlive this machine."""
        for name in scopes:
            self._refuse_settings_scope(name)
        await self._settings.load()
        await self._settings.keep_scopes(sorted(scopes - self._known.keys()))

    async def _info(self, name: str, epoch: int, records: int) -> ScopeInfo:
        title = self._known.get(name) or (await self._settings.load()).scopes.get(name) or name
        return ScopeInfo(
            name=name,
            title=title,
            scope_id=self.session.keyring.scope_id(name),
            epoch=epoch,
            records=records,
            custom=name not in self._known,
        )

    def _refuse_settings_scope(self, name: str) -> None:
        if check_scope_name(name) == SETTINGS_SCOPE:
            raise InvalidRecord(f"The scope {SETTINGS_SCOPE} is reserved for the patient's own settings.")

    def _pin_from(self, grants: Sequence[GrantReport]) -> None:
        """After a restore: the proxies that live grants already go to."""
        dids = list(dict.fromkeys(proxy.did for grant in grants if grant.live for proxy in grant.proxies))
        if dids:
            self.session.state.pin(dids[:MAX_SHARES], first=True)
