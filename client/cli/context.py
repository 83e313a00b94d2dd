"""What every command starts from: the global options, and the way from them to an open session."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import typer

from client import config, keystore
from client.author import Author
from client.cli.failures import PassphraseNeeded
from client.cli.output import Output
from client.cli.running import run
from client.errors import KeystoreMissing, WrongRole
from client.fhir.scopes import ScopeMap
from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared.wire import Role

T = TypeVar("T")

PASSPHRASE_VARIABLE = "PCEHR_PASSPHRASE"  # noqa: S105  This is the name of a variable.


@dataclass
class Cli:
    """The global options of one invocation, and its keys once they are unlocked."""

    output: Output
    profile_name: str
    registry: str | None
    passphrase_file: Path | None
    _keyring: Keyring | None = field(default=None, repr=False)

    @classmethod
    def of(cls, ctx: typer.Context) -> Cli:
        """The options of the invocation that `ctx` belongs to."""
        cli = ctx.find_object(cls)
        assert cli is not None
        return cli

    @property
    def profile(self) -> config.Profile:
        return config.profile(self.profile_name)

    def state(self) -> ClientState:
        return ClientState.load(self.profile.state)

    def registry_url(self, state: ClientState | None = None) -> str:
        return config.registry_url(self.registry, state)

    def passphrase(self, *, new: bool = False) -> str:
        """From --passphrase-file, PCEHR_PASSPHRASE, or the terminal; a new one is asked for twice."""
        if self.passphrase_file is not None:
            return self.passphrase_file.read_text("utf-8").rstrip("\r\n")
        given = os.environ.get(PASSPHRASE_VARIABLE)
        if given:
            return given
        if not sys.stdin.isatty():
            raise PassphraseNeeded
        question = "Choose a passphrase for this profile" if new else f"Passphrase of profile '{self.profile_name}'"
        return str(typer.prompt(question, hide_input=True, confirmation_prompt=new, err=True))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Unlock the profile's keys, then run. Whatever has to be asked is asked before, while Ctrl-C works at once."""
        try:
            if self._keyring is None:
                self.require_profile()
                self._keyring = keystore.load(self.profile.keystore, self.passphrase())
        except BaseException:
            work.close()
            raise
        return run(work)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """An open session of this profile; what it has seen of others is kept when the block is left."""
        assert self._keyring is not None, "commands run by `Cli.run`"
        state = self.state()
        async with Platform(self.registry_url(state)) as platform:
            try:
                yield Session(self._keyring, platform, state)
            finally:
                state.save_if_changed()

    @asynccontextmanager
    async def patient(self) -> AsyncIterator[Patient]:
        """The patient of this profile; raises `WrongRole` for a recipient's."""
        self.expect(Role.PATIENT)
        async with self.session() as session:
            yield patient_of(session)

    @asynccontextmanager
    async def recipient(self) -> AsyncIterator[Recipient]:
        """The recipient of this profile; raises `WrongRole` for a patient's."""
        async with self.recipient_session() as (_, recipient):
            yield recipient

    @asynccontextmanager
    async def recipient_session(self) -> AsyncIterator[tuple[Session, Recipient]]:
        """The same, with the session behind it."""
        self.expect(Role.RECIPIENT)
        async with self.session() as session:
            yield session, Recipient(session)

    @asynccontextmanager
    async def author(self) -> AsyncIterator[tuple[Author, Recipient]]:
        """The recipient of this profile as one who writes."""
        self.expect(Role.RECIPIENT)
        async with self.session() as session:
            yield Author(session), Recipient(session)

    def require_profile(self) -> None:
        """Raise `KeystoreMissing` where there is no such profile."""
        if not self.profile.exists:
            raise KeystoreMissing(self._no_profile())

    @property
    def is_patient(self) -> bool:
        """Whether this profile is a patient's; raises `KeystoreMissing` where there is none."""
        self.require_profile()
        return self.state().role is Role.PATIENT

    def expect(self, role: Role) -> None:
        if self.is_patient != (role is Role.PATIENT):
            self._wrong_role(role)

    def _no_profile(self) -> str:
        return f"There is no profile '{self.profile_name}' in {config.home()}."

    def _wrong_role(self, role: Role) -> NoReturn:
        raise WrongRole(f"This command is for a {role.value}, and the profile '{self.profile_name}' is none.")


def patient_of(session: Session) -> Patient:
    """A patient who knows the names of the common scopes, and hence their ids."""
    return Patient(session, known_scopes=common_scopes())


def common_scopes() -> dict[str, str]:
    """Titles of the scopes every client knows, by name."""
    return {scope.name: scope.title for scope in ScopeMap.load().scopes}
