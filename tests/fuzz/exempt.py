"""What looks like a decoder and is not tried by itself, each with the reason; the names may be patterns."""

_OWN_KEY = "takes a private key of its owner's own, never bytes of anybody else's"
_PARTS = "fetches, and takes apart by functions that are tried"
_ROW = "reads a database that only its own service writes"
_NOT_READING = "decodes nothing"

EXEMPT: dict[str, str] = {
    # Private keys.
    "client.envelopes.OpeningKeys.read": _OWN_KEY,
    "shared.crypto.engines.*.decode_secret_key": _OWN_KEY,
    "shared.crypto.umbral.SecretKey.from_revealed": _OWN_KEY,
    "services.proxy.identity.identity_from_seed": _OWN_KEY,
    # Which library does the arithmetic is said by the operator, in one of three words.
    "shared.crypto.engines._from_environment": "takes one of three words of the operator's",
    # Both hand on to an engine what `_Wire` has parsed once already.
    "shared.crypto.umbral._Wire._decode": "is abstract",
    "shared.crypto.umbral.Verified*Frag._decode": "parses again, in another engine, what has been verified",
    "shared.crypto.record.RecordKey.encrypt_header": "checks what is about to be written",
    # Composition: each step of it is in the registry.
    "client.cli.evidence._read": "reads a bounded file for `evidence.verify`",
    "client.cli.evidence.verify_file": "shows what `evidence.verify` says",
    "client.disclosure.*": _PARTS,
    "client.key_watch._read": _PARTS,
    "client.logs.Logs.accept": _PARTS,
    "client.log_memory.LogMemory.accept": "takes a verified checkpoint",
    "client.own_records.OwnRecords.open": _PARTS,
    "client.own_settings.OwnSettings.*": _PARTS,
    "client.patient.Patient.read_record": _PARTS,
    "client.reading.*": _PARTS,
    "client.pool.*": "hands on to a worker process of the client's own, which runs `open_envelope`",
    "client.envelope_worker.main": "runs `Envelope.read` and `open_envelope`",
    "client.envelopes.open_envelopes": "calls `open_envelope`",
    "client.envelopes.Unwrapped.parse": "reads what the client's own worker has written, of the size asked for",
    "client.recipient.Recipient.*": _PARTS,
    "client.session.Session._verified": "calls `verify_chain`",
    "services.proxy.arithmetic.Arithmetic.accept": "hands on to a worker process, which is tried",
    "services.proxy.identity.ProxyIdentity.open_share": "calls `SealingKey.open`",
    "services.proxy.service.ProxyService._open": "calls `ProxyIdentity.open_share`",
    "services.records.service.statements.Statements.verified*": "calls `verify_fresh` and `verify_delayed`",
    "shared.web.access.AccessTokens.verify": "calls `verify_access_token`",
    # Files and folders of whoever runs the platform, and what goes into a database.
    "client.embedded.platform.EmbeddedPlatform._open": _NOT_READING,
    "client.embedded.postgres.EmbeddedPostgres._read_password": "reads what it has itself written, mode 0600",
    "client.embedded.postgres._read_from": "shows the end of a log of this machine",
    "services.records.blobs.*": "streams ciphertexts, of which only the hash counts",
    "services.records.figures.OutboxFigures.read": _ROW,
    "services.records.repository.journal.Journal.accept": _ROW,
    "services.registry.service.Registry.scope_keys": _ROW,
    "shared.db.locks.lock_key": "hashes a name to the number of a lock",
    "shared.db.known_parties.DatabasePartyStore.load": _ROW,
    "shared.web.metrics.*": _NOT_READING,
    "shared.transparency.merkle._split": _NOT_READING,
    "client.fingerprint.fingerprint_of": "takes the first bytes of a hash",
    # Data of the package itself.
    "client.fhir.scopes.read_vocabulary": "reads the package's own data",
    "shared.schemas.examples._examples": "reads the package's own data",
}
