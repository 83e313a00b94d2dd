"""No secret in a repr, an exception, a trace of one, a setting that is shown, or an example: every class there is.

The classes are found, not listed: one that is added and does not keep to this fails here, as does one that the tests
do not know how to make.
"""

from __future__ import annotations

import ast
import base64
import copy
import importlib
import json
import pickle
import pkgutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings

import client
import services
import shared
from client.keyring import Keyring
from services.proxy.identity import ProxyIdentity, identity_from_seed
from services.proxy.settings import ProxySettings
from services.records.settings import Settings as RecordsSettings
from services.registry.settings import Settings as RegistrySettings
from shared.crypto.derivation import Seed
from shared.crypto.record import RecordKey
from shared.crypto.sealing import SealingKey
from shared.crypto.secrecy import Secret
from shared.crypto.signing import SigningKey
from shared.crypto.umbral import KfragSigner, SecretKey
from shared.encoding import b64url
from shared.schemas.examples import example
from shared.transparency.checkpoints import origin_of
from shared.web.settings import LogSettings, ServiceSettings
from tests.examples.generate import TARGET
from tests.unit.deploy.apps import SETTINGS as SERVICES
from tests.unit.deploy.apps import app_of

ROOT = Path(__file__).parents[3]
RAW = bytes(range(100, 132))
URL = "postgresql://service:a-password-of-the-database@127.0.0.1/service"
HOLDERS: dict[type[Secret], Callable[[], Secret]] = {
    Seed: lambda: Seed.from_bytes(RAW),
    SigningKey: lambda: SigningKey(RAW),
    SealingKey: lambda: SealingKey(RAW),
    RecordKey: lambda: RecordKey(RAW),
    SecretKey: lambda: Seed.from_bytes(RAW).umbral_key("x"),
    KfragSigner: lambda: KfragSigner(Seed.from_bytes(RAW).umbral_key("x")),
    Keyring: lambda: Keyring(Seed.from_bytes(RAW)),
    ProxyIdentity: lambda: identity_from_seed(RAW),
}
LOG_KEY = SigningKey(bytes(range(32))).verify_key
SETTINGS: dict[type[BaseSettings], dict[str, Any]] = {
    LogSettings: {},
    ServiceSettings: {"PCEHR_DATABASE_URL": URL},
    RegistrySettings: {
        "PCEHR_DATABASE_URL": URL,
        "token_signing_key": b64url(RAW),
        "log_signing_key": b64url(RAW[::-1]),
        "records_log": origin_of("records", LOG_KEY),
    },
    RecordsSettings: {"PCEHR_DATABASE_URL": URL, "log_signing_key": b64url(RAW)},
    ProxySettings: {"PCEHR_DATABASE_URL": URL, "seed": b64url(RAW), "endpoint": "http://proxy.example"},
}
NAMES_OF_SECRETS = ("key", "seed", "password", "passphrase", "secret", "database_url", "token", "words")
NO_SECRET = {
    "token_issuer": "An address.",
    "max_scope_keys_per_patient": "A number.",
}


def modules() -> Iterator[str]:
    for package in (client, services, shared):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".migrations" not in found.name and not found.name.endswith("__main__") and "die_with" not in found.name:
                yield found.name


def subclasses(of: type) -> set[type]:
    """Every subclass in the project, once all of it has been imported."""
    for name in modules():
        importlib.import_module(name)
    found, waiting = set(), [of]
    while waiting:
        for one in waiting.pop().__subclasses__():
            found.add(one)
            waiting.append(one)
    return {one for one in found if one.__module__.split(".")[0] in ("client", "services", "shared")}


def needles(raw: bytes) -> set[str]:
    """How bytes may be written out."""
    return {raw.hex(), repr(raw)[2:-1], str(int.from_bytes(raw, "big")), b64url(raw), base64.b64encode(raw).decode()}


def assert_hidden(text: str, *secrets: bytes) -> None:
    for secret in secrets:
        assert not [needle for needle in needles(secret) if needle.lower() in text.lower()]


def test_every_class_that_holds_a_secret_is_tested_here() -> None:
    assert subclasses(Secret) == set(HOLDERS)
    assert subclasses(BaseSettings) == set(SETTINGS)


@pytest.mark.parametrize("kind", HOLDERS, ids=lambda kind: kind.__name__)
def test_a_holder_shows_nothing_in_any_form(kind: type[Secret]) -> None:
    holder = HOLDERS[kind]()
    shown = [repr(holder), str(holder), f"{holder}", f"{holder:>60}", repr([holder]), repr({"it": holder})]
    try:
        raise ValueError(holder)
    except ValueError as error:
        shown += [str(error), repr(error), "".join(traceback.format_exception(error))]
    for text in shown:
        assert_hidden(text, RAW)
    for carry in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            carry(holder)


@pytest.mark.parametrize("kind", HOLDERS, ids=lambda kind: kind.__name__)
def test_two_holders_of_the_same_secret_are_not_compared_by_it(kind: type[Secret]) -> None:
    """An equality by value would stop at the first byte that differs."""
    assert kind.__eq__ is object.__eq__
    assert HOLDERS[kind]() != HOLDERS[kind]()


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_settings_show_no_secret(kind: type[BaseSettings]) -> None:
    for name, field in kind.model_fields.items():
        if any(part in name for part in NAMES_OF_SECRETS) and name not in NO_SECRET:
            assert field.annotation is SecretStr, f"{name} reads like a secret"
    settings = kind(**SETTINGS[kind])
    shown = [repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()]
    for text in shown:
        assert_hidden(text, RAW, RAW[::-1])
        assert "a-password" not in text


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_setting_that_does_not_fit_is_not_shown(kind: type[BaseSettings]) -> None:
    secrets = [name for name, field in kind.model_fields.items() if field.annotation is SecretStr]
    for name in secrets:
        if name == "database_url":
            continue
        with pytest.raises(ValidationError) as refusal:
            kind(**SETTINGS[kind] | {name: "not-a-key-but-secret"})
        assert "not-a-key" not in str(refusal.value)


def test_the_examples_of_the_documents_hold_no_private_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that the examples' parties derive, though their seeds are public: the form must not invite it."""
    texts = [TARGET.read_text("utf-8"), *(json.dumps(app_of(one, monkeypatch).openapi()) for one in SERVICES)]
    assert any(example("patient_did") in text for text in texts[1:])
    for number in range(1, 10):
        seed = Seed.from_bytes(bytes([number]) * 32)
        for label in ("identity/0", "identity/1", "sealing/0", "storage/0", "log/0"):
            for text in texts:
                assert_hidden(text, seed.derive(label, 32))
        for text in texts:
            assert b64url(bytes([number]) * 32) not in text


def test_no_secret_is_compared_by_value() -> None:
    """Wherever a secret is revealed, it is used and not compared, but in constant time."""
    found = []
    for package in ("client", "services", "shared"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Compare):
                    text = ast.unparse(node)
                    if any(word in text for word in (".reveal(", "get_secret_value(", "passphrase", ".words(", "CEK")):
                        found.append((path.relative_to(ROOT).as_posix(), text))
    assert [one for one in found if one not in COMPARED] == []


COMPARED = {
    ("client/cli/context.py", "self.passphrase_file is not None"): "Whether a file was named.",
    ("shared/crypto/record.py", "len(cek) != CEK_SIZE"): "A length.",
}
"""Comparisons that name a secret and do not look at its bytes, with why."""
