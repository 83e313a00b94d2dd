"""The parties of the story, each with keys, a memory and connections of its own."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from client.author import Author
from client.fhir.scopes import ScopeMap
from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.session import Session
from client.state import ClientState
from client.transport import Platform


@dataclass(frozen=True)
class Cast:
    """Everybody who takes part. Their keys live in this process's memory only."""

    patient: Patient
    other: Patient
    hospital: Recipient
    hospital_author: Author
    doctor: Recipient
    insurer: Recipient
    patient_did: str
    other_did: str
    hospital_did: str
    doctor_did: str
    insurer_did: str


async def assemble(registry_url: str, stack: AsyncExitStack) -> Cast:
    """Make everybody's keys and sign everybody up."""

    async def session() -> Session:
        platform = await stack.enter_async_context(Platform(registry_url))
        return Session(Keyring.generate(), platform, ClientState())

    known = {scope.name: scope.title for scope in ScopeMap.load().scopes}
    hospital_session = await session()
    patient, other = Patient(await session(), known_scopes=known), Patient(await session(), known_scopes=known)
    hospital, doctor, insurer = Recipient(hospital_session), Recipient(await session()), Recipient(await session())
    return Cast(
        patient=patient,
        other=other,
        hospital=hospital,
        hospital_author=Author(hospital_session),
        doctor=doctor,
        insurer=insurer,
        patient_did=(await patient.sign_up()).did,
        other_did=(await other.sign_up()).did,
        hospital_did=(await hospital.sign_up("Demo Hospital")).did,
        doctor_did=(await doctor.sign_up("Demo Practice", "Demo Health Centre")).did,
        insurer_did=(await insurer.sign_up("Demo Insurance")).did,
    )
