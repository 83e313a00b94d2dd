"""The run: records written, asked for, granted, opened, refused, revoked; and everything secret in it, as needles."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import umbral

from client import granting
from client.embedded.platform import EmbeddedPlatform
from client.errors import ClientError
from client.keyring import Keyring
from client.patient import Patient
from client.records import NewRecord
from client.reports import GrantReport
from shared.crypto.derivation import LABEL_PREFIX, Seed
from shared.crypto.record import RecordKey
from shared.crypto.sealing import SealingPublicKey
from shared.encoding import from_b64url
from shared.wire import Action, Purpose
from tests.canaries.needles import Needle
from tests.e2e.actors import Actor, ActorMaker, in_a_month

RECORDS = 334
"""Each with a body, a title and the name of a file: a thousand plaintexts."""
OPENED_SCOPE_RECORDS = 20
_KEY_OF_KFRAG = slice(32, 64)
"""Where in a kfrag its secret is; the rest of it is public or becomes so in a cfrag."""


def umbral_key(seed: bytes, label: str) -> bytes:
    """The 32 bytes of an Umbral key, which the project itself shows nobody."""
    factory = umbral.SecretKeyFactory.from_secure_randomness(seed)
    return bytes(factory.make_key(LABEL_PREFIX + label.encode()).to_secret_bytes())


@dataclass
class Secrets:
    """What the parties know and no server may; what a service knows, with its name."""

    needles: list[Needle] = field(default_factory=list)

    def add(self, kind: str, value: bytes, holder: str | None = None) -> None:
        self.needles.append(Needle(kind, value, holder))

    def text(self, kind: str) -> str:
        """A new text that occurs nowhere else."""
        made = f"Zoë {secrets.token_hex(12)}"
        self.add(kind, made.encode())
        return made

    def scope(self) -> str:
        made = f"canary-{secrets.token_hex(10)}"
        self.add("name of a scope", made.encode())
        return made

    def of_party(self, keyring: Keyring, scopes: list[str]) -> None:
        """Seed, words, and every key that is derived from them."""
        seed = keyring.reveal_seed()
        self.add("seed", seed)
        self.add("words", keyring.words().encode())
        self.add("identity key", Seed.from_bytes(seed).derive("identity/0", 32))
        for label in ("signer/0", "receiving/0", *(f"scope/{name}/{epoch}" for name in scopes for epoch in (0, 1))):
            self.add(f"key {label.partition('/')[0]}", umbral_key(seed, label))

    def of_services(self, home: Path) -> None:
        """The secrets that each service was given, and those that it derives from them."""
        for folder in sorted((home / "secrets").iterdir()):
            for name in ("pcehr_token_signing_key", "pcehr_log_signing_key", "pcehr_seed"):
                path = folder / name
                if path.exists():
                    self.add(name, from_b64url(path.read_text().strip(), 32), folder.name)
            if (folder / "pcehr_seed").exists():
                seed = Seed.from_bytes(from_b64url((folder / "pcehr_seed").read_text().strip(), 32))
                for label in ("identity/0", "sealing/0", "storage/0", "log/0"):
                    self.add(f"proxy's {label}", seed.derive(label, 32), folder.name)

    @contextlib.contextmanager
    def noted(self, proxies: dict[bytes, str]) -> Iterator[None]:
        """While the block runs, every content key and every kfrag that the clients make is noted down.

        `proxies` are their names by their sealing keys.
        """
        generate, seal = RecordKey.generate.__func__, granting.seal  # type: ignore[attr-defined]

        def generated(cls: type[RecordKey]) -> RecordKey:
            key: RecordKey = generate(cls)
            self.add("content key", key._cek)
            return key

        def sealed(key: SealingPublicKey, share: bytes) -> bytes:
            for start in range(0, len(share), 260):
                self.add("kfrag", share[start : start + 260][_KEY_OF_KFRAG], proxies[bytes(key)])
            return seal(key, share)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(RecordKey, "generate", classmethod(generated))
            patched.setattr(granting, "seal", sealed)
            yield


@dataclass
class Story:
    """Who took part, and how far it has got."""

    owner: Actor
    reader: Actor
    patient: Patient
    grant: GrantReport
    scopes: list[str]


async def tell(platform: EmbeddedPlatform, make: ActorMaker, known: Secrets, records: int = RECORDS) -> Story:
    """Everything up to the revocation."""
    shared_scope, other_scope = known.scope(), known.scope()
    scopes = [shared_scope, other_scope]
    owner, reader, stranger = await make.patient(), await make.recipient(), await make.recipient("Demo Insurer")
    for actor in (owner, reader, stranger):
        known.of_party(actor.keyring, scopes if actor is owner else [])
    known.of_services(platform.home)
    patient = Patient(owner.session, known_scopes=tuple(scopes))
    proxies = {
        bytes(SealingPublicKey.from_bytes(from_b64url(party.current.payload.sealing_key or ""))): name
        for name, did in platform.proxy_dids.items()
        for party in [await owner.session.party(did)]
    }
    with known.noted(proxies):
        notes = [
            NewRecord(
                body=known.text("body").encode() * 3,
                media_type="text/plain",
                scope=shared_scope if number < OPENED_SCOPE_RECORDS else other_scope,
                title=known.text("title"),
                filename=known.text("file name"),
            )
            for number in range(records)
        ]
        await patient.add_records(notes)
        request = await reader.recipient.request(
            owner.did,
            scopes=scopes,
            actions=[Action.READ],
            purpose=Purpose.TREAT,
            reason=known.text("reason"),
            expires=in_a_month(),
        )
        await patient.inbox()
        grant = await patient.approve(request, scopes=[shared_scope])
    assert len((await reader.recipient.fetch()).opened) == OPENED_SCOPE_RECORDS
    await _be_refused(platform, owner, stranger, grant)
    return Story(owner, reader, patient, grant, scopes)


async def _be_refused(platform: EmbeddedPlatform, owner: Actor, stranger: Actor, grant: GrantReport) -> None:
    """Refusals of many kinds, of requests with secrets right beside them."""
    for attempt in (
        stranger.recipient.grant(grant.id),
        stranger.session.platform.grant(await stranger.session.credentials(), grant.id),
        owner.patient.read_record("0198f000-0000-7000-8000-000000000001"),
        owner.patient.revoke("A" * 43, wait_seconds=0),
    ):
        with pytest.raises(ClientError):
            await attempt
    async with httpx.AsyncClient(trust_env=False) as http:
        for url in platform.urls.values():
            for path in ("/v1/records", "/v1/kfrags", "/v1/grants", "/v1/patients", "/v1/reencryptions", "/nowhere"):
                await http.get(url + path)
                await http.post(url + path, json={"member": "that nobody knows"})
                await http.post(url + path, content=b"no JSON", headers={"authorization": "Bearer e30.e30.AA"})
