"""What a client reads besides statements: FHIR, sealed parts, records, what people type, and its own files."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from client import config, keystore
from client.cli import values
from client.cli.failures import InvalidValue
from client.embedded.errors import BrokenHome, HomeMismatch
from client.embedded.home import Home
from client.errors import (
    InvalidWords,
    KeystoreDamaged,
    StateDamaged,
    UnexpectedAnswer,
    VerificationFailed,
    WrongPassphrase,
)
from client.evidence import verify as evidence
from client.evidence.file import parse_file
from client.fhir import make_demo_bundle
from client.fhir.bundle import assemble_bundle, fit_together, read_bundle
from client.fhir.resource import read_resource, same_resource, write_resource
from client.fhir.scopes import ScopeMap, check_scope_name
from client.fhir.summary import describe
from client.header import RecordHeader
from client.keyring import Keyring
from client.records import open_record, open_record_to_file, unwrap_as_owner
from client.reports import Override, Settings
from client.sealed import open_grant, open_request
from client.settings_record import from_body, to_record
from client.state import ClientState
from client.transport import _shape
from client.verification import check_record
from shared.crypto import umbral
from shared.encoding import b64url, canonical_json, from_b64url, from_canonical_json
from shared.errors import Malformed
from shared.identity import verify_chain
from shared.schemas.examples import example
from shared.schemas.records import RecordOut
from shared.statements import DisclosureRequest, Grant, verify_stored
from shared.wire import Role
from tests.examples.generate import ExampleParty
from tests.fuzz.decoder import Decoder
from tests.fuzz.decoders.text import of_text, raw
from tests.unit.evidence.files import Evidence

_PATIENT, _RECIPIENT = ExampleParty(0xA1, Role.PATIENT), ExampleParty(0xA2, Role.RECIPIENT)
_KEYRING = Keyring(_PATIENT.seed)
_FOLDER = Path(tempfile.mkdtemp(prefix="pcehr-fuzz-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_PASSPHRASE = "correct horse"
_OWNER = verify_chain(_PATIENT.did, [example("patient_key_entry")])
_READER = verify_chain(_RECIPIENT.did, [example("recipient_key_entry")])


def _file(name: str, data: bytes) -> Path:
    """A file of this process's own, for its owner's eyes only."""
    path = _FOLDER / f"{os.getpid()}-{name}"
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


# --- FHIR -------------------------------------------------------------------------------------------------------------


def _resource(data: bytes) -> None:
    """Whatever is read can be written, and reads as the same again."""
    resource = read_resource(data)
    written = write_resource(resource)
    assert same_resource(read_resource(written), resource)
    assert write_resource(read_resource(written)) == written
    describe(resource)
    ScopeMap.load().scope_for(resource)


def _bundle(data: bytes) -> None:
    items = read_bundle(data)
    ScopeMap.load().scopes_for_bundle(items)
    fitting = [item for item, reason in zip(items, fit_together(items), strict=True) if reason is None]
    assert len(read_bundle(assemble_bundle(fitting))) <= len(fitting)


def _vocabulary(said: str) -> None:
    check_scope_name(said)


_DEMO = Path(make_demo_bundle.__file__).with_name("demo_bundle.json")
_ENTRIES: list[Any] = json.loads(_DEMO.read_text("utf-8"))["entry"]
_SMALL = sorted(_ENTRIES, key=lambda entry: len(json.dumps(entry)))[:12]
_RESOURCES = [json.dumps(entry["resource"], ensure_ascii=False).encode() for entry in _SMALL]
_BUNDLE = json.dumps({"resourceType": "Bundle", "type": "collection", "entry": _SMALL[:5]}).encode()


# --- records and sealed parts -----------------------------------------------------------------------------------------


def _record(data: bytes) -> None:
    """A record as the service shows it, as far as its owner goes with it."""
    shown = _shape(RecordOut, data)
    verified = check_record(shown, patient=_OWNER, author=_OWNER)
    key = unwrap_as_owner(verified, _KEYRING.delegating("allergies", 0))
    opened = open_record(verified, key, scope="allergies")
    ciphertext, opened_to = _file("ciphertext", verified.body or b""), _FOLDER / f"{os.getpid()}-opened"
    opened_to.unlink(missing_ok=True)
    open_record_to_file(verified, key, scope="allergies", ciphertext=ciphertext, destination=opened_to)
    assert opened_to.read_bytes() == opened.body


def _header(data: bytes) -> bytes:
    members = from_canonical_json(data)
    if not isinstance(members, dict):
        raise Malformed
    return canonical_json(RecordHeader.from_json(members).to_json())


def _settings(data: bytes) -> None:
    """What was read is what is written, but for the order of the scopes."""
    settings = from_body(data)
    body = to_record(settings).body
    assert isinstance(body, bytes)
    assert from_body(body) == settings


def _sealed_request(data: bytes) -> None:
    open_request(_REQUEST.model_copy(update={"sealed": b64url(data)}), _KEYRING.receiving(0))


def _sealed_grant(data: bytes) -> None:
    open_grant(_GRANT.model_copy(update={"sealed": b64url(data)}), _RECIPIENT.seed.umbral_key("receiving/0"))


def _sealed_inside(data: bytes) -> None:
    """What a recipient may have sealed to the patient in the place of a request's content."""
    capsule, ciphertext = umbral.encrypt(_KEYRING.receiving(0).public_key(), data)
    _sealed_request(bytes(capsule) + ciphertext)


_REQUEST = verify_stored(example("disclosure_request"), DisclosureRequest, _READER).payload
_GRANT = verify_stored(example("grant"), Grant, _OWNER).payload
_AROUND = {"iss": _REQUEST.iss, "aud": _REQUEST.aud, "jti": _REQUEST.jti}
_CONTENT = canonical_json({**_AROUND, "scopes": ["allergies"], "reason": "Planned treatment"})


# --- evidence ---------------------------------------------------------------------------------------------------------


def _evidence_file(data: bytes) -> bytes:
    return parse_file(data).to_bytes()


def _evidence(data: bytes) -> None:
    """Never raises: what does not hold is a fault in the verdict."""
    verdict = evidence.verify(data)
    assert verdict.holds == (data == _EVIDENCE)


_EVIDENCE = Evidence().data


# --- files and what people type ---------------------------------------------------------------------------------------


def _words(said: str) -> str | None:
    words = Keyring.from_words(said).words()
    # In any case and with any white space.
    assert words.split() == said.lower().split()
    return None


def _keystore(data: bytes) -> None:
    """Opened only at the least cost; what a file may ask for at most is bounded, and takes seconds."""
    path = _file("keystore.json", data)
    keystore.did_of(path)
    header = keystore._read(path).header
    if (header.operations, header.memory) == (keystore.LIGHT.operations, keystore.LIGHT.memory):
        assert keystore.load(path, _PASSPHRASE).did == _KEYRING.did


def _whole_keystore() -> bytes:
    path = _FOLDER / "sample.json"
    keystore.create(path, _KEYRING, _PASSPHRASE, cost=keystore.LIGHT)
    return path.read_bytes()


def _state(data: bytes) -> None:
    path = _file("state.db", data)
    state = ClientState.load(path)
    state.known_parties()
    state.known_scopes()
    state.check_chain(_OWNER)
    state.epochs_of(_OWNER.did)
    state.kept_party(_OWNER.did)


def _whole_state(name: str = "name") -> bytes:
    path = _FOLDER / "state.db"
    path.unlink(missing_ok=True)
    state = ClientState(path)
    state.role, state.registry_url, state.display_name = Role.PATIENT, "http://127.0.0.1:8400", name
    state.contacts = {"doctor": _READER.did}
    state.note_chain(_READER)
    state.keep_party(_READER)
    state.raise_epoch(_OWNER.did, _KEYRING.scope_id("allergies"), 3)
    state.save()
    return path.read_bytes()


def _state_text(data: bytes) -> None:
    """A state that is whole as a database and holds any bytes where it holds text."""
    path = _file("state-text.db", _STATE)
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE profile SET display_name = CAST(? AS TEXT)", (data,))
        file.execute("UPDATE parties SET entries = CAST(? AS TEXT)", (data,))
        file.execute("UPDATE contacts SET did = CAST(? AS TEXT)", (data,))
    _state(path.read_bytes())


_STATE = _whole_state()


def _running_platform(data: bytes) -> None:
    """The file that a platform on this machine leaves in the data folder."""
    home = _FOLDER / str(os.getpid())
    home.mkdir(exist_ok=True)
    (home / "platform.json").write_bytes(data)
    before = os.environ.get(config.HOME_VARIABLE)
    os.environ[config.HOME_VARIABLE] = str(home)
    try:
        config.registry_url()
    finally:
        del os.environ[config.HOME_VARIABLE]
        if before is not None:
            os.environ[config.HOME_VARIABLE] = before


def _home(data: bytes) -> None:
    """The layout of an embedded platform, and the file by which a second one tells where the first one is reached."""
    folder = _FOLDER / str(os.getpid())
    folder.mkdir(exist_ok=True)
    (folder / "platform.json").write_bytes(data)
    (folder / "layout.json").write_bytes(data)
    home = Home(folder)
    assert home._who_runs()
    home.layout(proxies=None, base_port=None, external_database=False)


def _typed(said: str) -> None:
    """Each of the things that people type, since the same text may be any of them."""
    refused = 0
    for read in (
        lambda: values.expiry(said, 1_800_000_000),
        lambda: values.label(said),
        lambda: values.party_id(said),
        lambda: values.choices(Role, [said]),
    ):
        try:
            read()
        except InvalidValue:
            refused += 1
    values.names([said])
    if refused == 4:
        raise InvalidValue


_LAYOUT = {
    "base_port": 8400, "registry_port": 8400, "records_port": 8401, "proxy_ports": [8411, 8412, 8413],
    "external_database": False, "database_prefix": "pcehr", "pid": 1, "registry_url": "http://127.0.0.1:8400",
}  # fmt: skip
_LAYOUT_ONLY = {name: value for name, value in _LAYOUT.items() if name not in ("pid", "registry_url")}

DECODERS = (
    Decoder("fhir-resource", _resource, _RESOURCES, share=0.3),
    Decoder("fhir-bundle", _bundle, [_BUNDLE], share=0.1),
    Decoder("scope-name", of_text(_vocabulary), [b"mental-health"]),
    Decoder(
        "record-shown",
        _record,
        [canonical_json(example("record"))],
        refusals=(UnexpectedAnswer, VerificationFailed),
        share=0.1,
    ),
    Decoder("record-header", _header, [canonical_json({"length": 3, "media_type": "text/plain", "title": "x"})]),
    Decoder(
        "settings",
        _settings,
        [to_record(Settings(scopes={"a": "A"}, overrides=(Override(scope="a", resource_type="Observation"),))).body],
        refusals=(VerificationFailed,),
    ),
    Decoder("sealed-request", _sealed_request, [from_b64url(_REQUEST.sealed)], (VerificationFailed,), 0.1),
    Decoder("sealed-grant", _sealed_grant, [from_b64url(_GRANT.sealed)], (VerificationFailed,), 0.1),
    Decoder("sealed-inside", _sealed_inside, [_CONTENT], (VerificationFailed,), 0.1),
    Decoder("evidence-file", _evidence_file, [_EVIDENCE], share=0.02),
    Decoder("evidence", _evidence, [_EVIDENCE], refusals=(), share=0.02),
    Decoder("words", of_text(_words), [raw(_KEYRING.words())], refusals=(InvalidWords,), share=0.3),
    Decoder(
        "keystore",
        _keystore,
        [_whole_keystore()],
        refusals=(KeystoreDamaged, WrongPassphrase),
        share=0.02,
    ),
    Decoder("state-file", _state, [_STATE], refusals=(StateDamaged,), share=0.02),
    Decoder("state-text", _state_text, [b"name"], refusals=(StateDamaged,), share=0.02),
    Decoder(
        "platform-file",
        _running_platform,
        [canonical_json(_LAYOUT)],
        refusals=(UnexpectedAnswer,),
        share=0.2,
    ),
    Decoder("platform-layout", _home, [canonical_json(_LAYOUT_ONLY)], refusals=(BrokenHome, HomeMismatch), share=0.05),
    Decoder("typed", of_text(_typed), [b"30d", b"2027-01-31", raw(_OWNER.did)], refusals=(InvalidValue,), share=0.3),
)
