"""Fixtures that run a test under each implementation of Umbral, and a small cast of keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from shared.crypto import umbral
from shared.crypto.derivation import Seed
from shared.crypto.engines import ENGINE_NAMES, load_engine, use_engine
from shared.crypto.errors import EngineUnavailable
from shared.crypto.record import RecordContext


@pytest.fixture(params=ENGINE_NAMES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once under each engine that is installed."""
    name: str = request.param
    try:
        load_engine(name)
    except EngineUnavailable:
        pytest.skip(f"{name} has no wheel for this interpreter")
    with use_engine(name):
        yield name


@pytest.fixture(scope="session")
def both_engines() -> tuple[str, str]:
    """Skip unless both engines are installed."""
    try:
        for name in ENGINE_NAMES:
            load_engine(name)
    except EngineUnavailable:
        pytest.skip("only one engine is installed")
    return "umbral-pre", "umbral"


@dataclass(frozen=True)
class Cast:
    """A patient's and a recipient's keys, derived in whichever engine is current."""

    delegating_sk: umbral.SecretKey
    receiving_sk: umbral.SecretKey
    signer: umbral.KfragSigner

    @property
    def delegating(self) -> umbral.PublicKey:
        return self.delegating_sk.public_key()

    @property
    def receiving(self) -> umbral.PublicKey:
        return self.receiving_sk.public_key()

    @property
    def verifying(self) -> umbral.PublicKey:
        return self.signer.verifying_key()

    @property
    def keys(self) -> tuple[umbral.PublicKey, umbral.PublicKey, umbral.PublicKey]:
        """In the order in which `verify` takes them."""
        return self.verifying, self.delegating, self.receiving

    def kfrags(self, threshold: int = 2, shares: int = 3) -> list[umbral.VerifiedKeyFrag]:
        return umbral.generate_kfrags(self.delegating_sk, self.receiving, self.signer, threshold, shares)


def make_cast() -> Cast:
    patient, recipient = Seed.from_bytes(b"\x01" * 32), Seed.from_bytes(b"\x02" * 32)
    return Cast(
        delegating_sk=patient.umbral_key("scope/allergies/0"),
        receiving_sk=recipient.umbral_key("receiving/0"),
        signer=umbral.KfragSigner(patient.umbral_key("signer/0")),
    )


@pytest.fixture
def cast(engine: str) -> Cast:
    return make_cast()


@pytest.fixture
def new_cast() -> object:
    """The function that makes a cast, for tests that change the engine under way."""
    return make_cast


@pytest.fixture
def context() -> RecordContext:
    return RecordContext(patient="did:key:p", record="r", version=1, scope="s", epoch=0, author="did:key:a")
