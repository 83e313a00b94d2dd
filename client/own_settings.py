"""The patient's settings in use: read once, and changed so that no change of another program is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from client.errors import ServiceRefused, UnknownRecord, VerificationFailed
from client.own_records import OwnRecords
from client.reports import Settings
from client.scope_keys import OwnScopes
from client.session import Session
from client.settings_record import from_body, to_record
from client.verification import VerifiedRecord

_ATTEMPTS = 3
"""How often a change is applied anew because another program of the same patient was faster."""


class OwnSettings:
    """Works for `client.patient.Patient`."""

    def __init__(self, session: Session, scopes: OwnScopes, records: OwnRecords) -> None:
        self._session = session
        self._scopes = scopes
        self._records = records
        self._known: Settings | None = None

    async def load(self) -> Settings:
        """The settings as they were when this session first looked, or last changed them."""
        return self._known if self._known is not None else await self.read()

    async def read(self) -> Settings:
        """The settings as the settings record has them now; empty ones if there is no such record yet."""
        settings, _ = await self._read()
        return settings

    async def change(self, change: Callable[[Settings], Settings]) -> Settings:
        """Apply a change to the newest settings; when another program was faster, to what that one wrote."""
        for attempt in range(_ATTEMPTS):
            settings, before = await self._read()
            changed = change(settings)
            if changed == settings:
                return settings
            try:
                await self._write(changed, before)
            except ServiceRefused as refused:
                if refused.code != "version_conflict" or attempt == _ATTEMPTS - 1:
                    raise
            else:
                break
        self._known = changed
        self._scopes.learn(changed.scopes)
        return changed

    async def keep_scopes(self, names: Iterable[str]) -> None:
        """See that the names of these scopes are in the settings, before anything is filed under them."""
        wanted = list(names)
        known = (await self.load()).scopes
        if any(name not in known for name in wanted):
            await self.change(lambda settings: with_scopes(settings, dict.fromkeys(wanted)))

    async def _read(self) -> tuple[Settings, VerifiedRecord | None]:
        """The settings and the record they stand in. Only the patient itself can have written it."""
        newest: VerifiedRecord | None = None
        try:
            newest = (await self._records.versions(self._session.keyring.settings_record_id))[-1]
        except UnknownRecord:
            settings = Settings()
        else:
            if newest.manifest.payload.iss != self._session.did:
                raise VerificationFailed("The settings record was written by somebody else.")
            settings = from_body((await self._records.open(newest)).body)
        self._known = settings
        self._scopes.learn(settings.scopes)
        return settings, newest

    async def _write(self, settings: Settings, before: VerifiedRecord | None) -> None:
        record = to_record(settings)
        if before is None:
            await self._records.add_first(self._session.keyring.settings_record_id, record)
        else:
            await self._records.add_after(before, record)


def with_scopes(settings: Settings, titles: dict[str, str | None]) -> Settings:
    """The settings with these scopes in them; one that is there keeps its title unless another is given."""
    scopes = dict(settings.scopes)
    for name, title in titles.items():
        scopes[name] = title or scopes.get(name) or name
    return settings if scopes == settings.scopes else replace(settings, scopes=scopes)
