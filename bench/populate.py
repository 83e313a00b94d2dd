"""Rows of strangers for the tables of the three services: as many as wanted, made inside Postgres.

What is filled in is random, of the true sizes and in the true proportions, and belongs to nobody whose key exists:
no signature of it would verify, and nobody can ask for it. Keys, indexes and constraints are those of the services'
migrations; the foreign keys hold too, and are only not checked while the rows go in, which a superuser may have.

The nodes of the log are random as well, and are no tree's. What a service appends afterwards builds on them as on any
others: it does the same work, and its proofs of new leaves verify. Nothing can be proven of the strangers' own.

    await fill(superuser_url_of_that_database, "records", Strangers(records=1_000_000, grants=100_000), log_key)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from shared.crypto.signing import SigningKey
from shared.db.engine import Database
from shared.db.log import tree
from shared.transparency.checkpoints import Kind, sign_checkpoint
from shared.transparency.merkle import needed_for_root, root_of

RECORDS_OF_PATIENT = 100
"""A chart; synthetic ones have hundreds, of which many are small."""
GRANTS_OF_RECIPIENT = 5
SCOPES = 12
PROXIES = 3
ENTRIES = 3
"""Scope entries of one grant."""
POOL_BYTES = 1 << 16
"""Random bytes that contents are cut from, so that none can be compressed."""


@dataclass(frozen=True)
class Sizes:
    """Octets of what varies in size; the defaults are those of a FHIR resource of 1 KiB and of statements in 2 of 3."""

    body: int = 1_100
    header: int = 300
    manifest: int = 1_150
    grant: int = 2_900
    receipt: int = 620
    key_entry: int = 1_000
    scope_key: int = 560
    event: int = 420


LEAST = Sizes(body=1, header=1, manifest=1, grant=1, receipt=1, key_entry=1, scope_key=1, event=1)
"""For what depends on numbers of rows and not on their bytes."""


@dataclass(frozen=True)
class Strangers:
    """How many rows; those of the other tables follow in proportion. `waiting` is the number of messages in the outbox,
    of grants whose proxies are away."""

    records: int
    grants: int
    records_of_patient: int = RECORDS_OF_PATIENT
    waiting: int = 0
    sizes: Sizes = Sizes()

    @property
    def patients(self) -> int:
        return max(self.records // self.records_of_patient, 1)

    @property
    def recipients(self) -> int:
        return max(self.grants // GRANTS_OF_RECIPIENT, 1)

    def leaves(self, service: Kind) -> int:
        """Rows of the service's log: at the registry each key, at the records service each record written and two for
        each grant, at a proxy five for each grant (a share stored, some requests answered, and the end)."""
        if service == "registry":
            return self.patients * (1 + SCOPES) + self.recipients
        return self.records + 2 * self.grants if service == "records" else 5 * self.grants


# Only functions that Postgres may put in place of their call, which makes millions of rows a matter of seconds.
_FUNCTIONS = """
-- No digit 0, which base58 has not.
CREATE FUNCTION pg_temp.did(kind text, i bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
  $$ SELECT translate('did:key:z6Mkh' || md5(kind || i::text) || substr(md5(kind || i::text), 1, 11), '0', 'z') $$;
CREATE FUNCTION pg_temp.hash(kind text, i bigint) RETURNS bytea LANGUAGE sql IMMUTABLE AS
  $$ SELECT sha256((kind || i::text)::bytea) $$;
CREATE FUNCTION pg_temp.hash64(kind text, i bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
  $$ SELECT rtrim(translate(encode(sha256((kind || i::text)::bytea), 'base64'), '+/', '-_'), '=') $$;
CREATE FUNCTION pg_temp.uuid(kind text, i bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
  $$ SELECT md5(kind || i::text)::uuid::text $$;
CREATE FUNCTION pg_temp.octets(size int, i bigint) RETURNS bytea LANGUAGE sql IMMUTABLE AS
  $$ SELECT substr('{octets}'::bytea, 1 + (i * 7919 % {span})::int, size) $$;
CREATE FUNCTION pg_temp.chars(size int, i bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
  $$ SELECT left(encode(substr('{octets}'::bytea, 1 + (i * 7919 % {span})::int, size / 2 + 1), 'hex'), size) $$;
"""

_NOW = int(time.time())
_END = 2_000_000_000


def _records(size: Strangers) -> dict[str, str]:
    p, r, n, g, bytes_of = size.patients, size.recipients, size.records, size.grants, size.sizes
    patient, recipient = f"pg_temp.did('patient', i % {p})", f"pg_temp.did('recipient', i % {r})"
    parties = {
        "known_parties (did, length, entries)": f"SELECT pg_temp.did(kind, i), 1,"
        f" ARRAY[pg_temp.chars({bytes_of.key_entry}, i)] FROM (VALUES ('patient', {p}), ('recipient', {r}))"
        " AS k (kind, many), LATERAL generate_series(0, many - 1) i",
        "scope_floors (patient, scope, epoch)": "SELECT pg_temp.did('patient', i / 12),"
        f" substr(pg_temp.hash('scope', i), 1, 16), 0 FROM generate_series(0, {p} * {SCOPES} - 1) i",
    }
    consent = {
        # Each was answered by a grant, but one in fifty that waits.
        "disclosure_requests (id, patient, recipient, actions, purpose, expires_at, statement, received_at, open)": (
            f"SELECT pg_temp.hash('request', i), {patient}, {recipient}, ARRAY['read'], 'TREAT', {_END},"
            f" pg_temp.chars({bytes_of.manifest}, i), {_NOW}, i % 50 = 0 FROM generate_series(0, {g} - 1) i"
        ),
        "grants (id, patient, recipient, request, actions, not_before, expires_at, threshold, statement, received_at,"
        " end_told)": (
            f"SELECT pg_temp.hash('grant', i), {patient}, {recipient}, pg_temp.hash('request', i), ARRAY['read'],"
            f" {_NOW}, {_END} + i, 2, pg_temp.chars({bytes_of.grant}, i), {_NOW}, i % 10 = 0"
            f" FROM generate_series(0, {g} - 1) i"
        ),
        "grant_scopes (grant_id, entry, scope, epoch, limited)": (
            f"SELECT pg_temp.hash('grant', i), e, substr(pg_temp.hash('scope', i % {p} * {SCOPES} + e), 1, 16), 0,"
            f" i % 10 = 1 FROM generate_series(0, {g} - 1) i, generate_series(0, {ENTRIES} - 1) e"
        ),
        "grant_capsules (grant_id, entry, capsule_hash)": (
            f"SELECT pg_temp.hash('grant', i), e, pg_temp.hash('capsule', i % {p} + {p} * (k * {SCOPES} + e))"
            f" FROM generate_series(1, {g} - 1, 10) i, generate_series(0, {ENTRIES} - 1) e, generate_series(0, 4) k"
        ),
        "grant_proxies (grant_id, proxy, position, stored, erased)": (
            f"SELECT pg_temp.hash('grant', i), pg_temp.did('proxy', e), e, pg_temp.chars({bytes_of.receipt}, i + e),"
            f" CASE WHEN i % 10 = 0 THEN pg_temp.chars({bytes_of.receipt}, i + e) END"
            f" FROM generate_series(0, {g} - 1) i, generate_series(0, {PROXIES} - 1) e"
        ),
        "revocations (issuer, grant_id, id, statement, received_at)": (
            f"SELECT {patient}, pg_temp.hash('grant', i), pg_temp.hash('revocation', i),"
            f" pg_temp.chars({bytes_of.manifest}, i), {_NOW} FROM generate_series(0, {g} - 1, 10) i"
        ),
        "disclosed (patient, grant_id, record, version)": (
            f"SELECT {patient}, pg_temp.hash('grant', i), pg_temp.uuid('record', i % {p} + {p} * k), 1"
            f" FROM generate_series(0, {g} - 1) i, generate_series(0, 4) k"
        ),
        "outbox (grant_id, proxy, kind, sealed, attempts, due_at)": (
            "SELECT pg_temp.hash('grant', i), pg_temp.did('proxy', i % 3), 'shares', pg_temp.octets(900, i), 9,"
            f" {_END}000 FROM generate_series(0, {size.waiting} - 1) i"
        ),
        "notices (party, number, at, kind, other, grant_id)": (
            f"SELECT {recipient}, i / {r} + 1, {_NOW}, 'granted', {patient}, pg_temp.hash('grant', i)"
            f" FROM generate_series(0, {g} - 1) i"
        ),
        "notice_heads (party, last)": (
            f"SELECT pg_temp.did('recipient', i), {g} / {r} FROM generate_series(0, {r} - 1) i"
        ),
        "usage (party, kind, amount)": (
            f"SELECT pg_temp.did('patient', i), kind, 1 FROM generate_series(0, {p} - 1) i,"
            " unnest(ARRAY['versions', 'bytes', 'grants', 'uploads']) kind"
            f" UNION ALL SELECT pg_temp.did('recipient', i), 'requests', 1 FROM generate_series(0, {r} - 1) i"
        ),
    }
    records = {
        "records (id, patient, version, head)": (
            f"SELECT pg_temp.uuid('record', i), {patient}, 1, pg_temp.hash('manifest', i)"
            f" FROM generate_series(0, {n} - 1) i"
        ),
        "record_versions (patient, record, version, manifest_id, manifest, author, scope, epoch, capsule_hash, capsule,"
        " wrapped_key, header, body_hash, size, body, received_at)": (
            f"SELECT {patient}, pg_temp.uuid('record', i), 1, pg_temp.hash('manifest', i),"
            f" pg_temp.chars({bytes_of.manifest}, i), {patient},"
            f" substr(pg_temp.hash('scope', i % {p} * {SCOPES} + i / {p} % {SCOPES}), 1, 16), 0,"
            " pg_temp.hash('capsule', i), pg_temp.octets(98, i), pg_temp.octets(104, i),"
            f" pg_temp.octets({bytes_of.header}, i), pg_temp.hash('body', i), {bytes_of.body},"
            f" pg_temp.octets({bytes_of.body}, i), {_NOW} FROM generate_series(0, {n} - 1) i"
        ),
        "blobs (owner, sha256, size, stored_at)": (
            f"SELECT {patient}, pg_temp.hash('blob', i), 1000000, {_NOW} FROM generate_series(0, {n} - 1, 20) i"
        ),
        "statements (issuer, jti, id, kind, received_at)": (
            f"SELECT {patient}, substr(pg_temp.hash('jti', i), 1, 16), pg_temp.hash('manifest', i), 'manifest', {_NOW}"
            f" FROM generate_series(0, {n} + 2 * {g} - 1) i"
        ),
    }
    leaves = size.leaves("records")
    return parties | consent | records | _log(leaves) | _events(leaves, p, bytes_of.event)


def _registry(size: Strangers) -> dict[str, str]:
    p, r, bytes_of = size.patients, size.recipients, size.sizes
    everybody = (
        f"(VALUES ('patient', {p}), ('recipient', {r})) AS k (kind, many), LATERAL generate_series(0, many - 1) i"
    )
    keys = f"generate_series(0, {p} * {SCOPES} - 1) i"
    return {
        "parties (did, role, seq, name, organisation, sort_name, search_text, created_at)": (
            "SELECT pg_temp.did(kind, i), kind, 0, name, name, coalesce(name, ''), coalesce(name, ''),"
            f" {_NOW} FROM (SELECT kind, i, CASE kind WHEN 'recipient' THEN 'demo practice ' || i::text END AS name"
            f" FROM {everybody}) AS named"
        ),
        "key_entries (did, seq, id, identity_key, token, received_at)": (
            "SELECT pg_temp.did(kind, i), 0, pg_temp.hash(kind || 'entry', i), pg_temp.hash(kind || 'key', i),"
            f" pg_temp.chars({bytes_of.key_entry}, i), {_NOW} FROM {everybody}"
        ),
        "scope_keys (patient, scope, epoch, id, delegating_key, token)": (
            f"SELECT pg_temp.did('patient', i / {SCOPES}), substr(pg_temp.hash('scope', i), 1, 16), 0,"
            " pg_temp.hash('scope-key', i), pg_temp.octets(33, i),"
            f" pg_temp.chars({bytes_of.scope_key}, i) FROM {keys}"
        ),
        "statements (issuer, jti, id, kind, received_at)": (
            f"SELECT pg_temp.did('patient', i / {SCOPES}), substr(pg_temp.hash('jti', i), 1, 16),"
            f" pg_temp.hash('scope-key', i), 'scope-key', {_NOW} FROM {keys}"
        ),
        "assertions (client, jti, expires)": (
            f"SELECT pg_temp.did('recipient', i % {r}), pg_temp.hash('assertion', i), {_END} + i"
            f" FROM generate_series(0, 2 * {r} - 1) i"
        ),
        "audit (did, at, act, outcome)": (
            f"SELECT pg_temp.did('patient', i / {SCOPES}), {_NOW}, 'scope-key', 'accepted' FROM {keys}"
        ),
        "usage (party, kind, amount)": (
            f"SELECT pg_temp.did('patient', i), 'scope_keys', {SCOPES} FROM generate_series(0, {p} - 1) i"
        ),
    } | _log(size.leaves("registry"))


def _proxy(size: Strangers) -> dict[str, str]:
    p, r, g, bytes_of, leaves = size.patients, size.recipients, size.grants, size.sizes, size.leaves("proxy")
    patient, recipient = f"pg_temp.did('patient', i % {p})", f"pg_temp.did('recipient', i % {r})"
    return (
        {
            "known_parties (did, length, entries)": f"SELECT pg_temp.did(kind, i), 1,"
            f" ARRAY[pg_temp.chars({bytes_of.key_entry}, i)] FROM (VALUES ('patient', {p}), ('recipient', {r}))"
            " AS k (kind, many), LATERAL generate_series(0, many - 1) i",
            "grants (patient, id, recipient, token, nbf, exp, threshold, limits)": (
                f"SELECT {patient}, pg_temp.hash64('grant', i), {recipient}, pg_temp.chars({bytes_of.grant}, i),"
                f" {_NOW}, {_END} + i, 2, '[null, null, null]' FROM generate_series(0, {g} - 1) i"
            ),
            "kfrags (patient, grant_id, entry, sealed, exp)": (
                f"SELECT {patient}, pg_temp.hash64('grant', i), e, pg_temp.octets(300, i + e), {_END} + i"
                f" FROM generate_series(0, {g} - 1) i, generate_series(0, {ENTRIES} - 1) e WHERE i % 10 > 0"
            ),
            "usage (party, kind, amount)": (
                f"SELECT pg_temp.did('patient', i), 'shares', 1 FROM generate_series(0, {p} - 1) i"
            ),
            "tombstones (issuer, grant_id, token, receipt)": (
                f"SELECT {patient}, pg_temp.hash64('grant', i), pg_temp.chars({bytes_of.manifest}, i),"
                f" pg_temp.chars({bytes_of.receipt}, i) FROM generate_series(0, {g} - 1, 10) i"
            ),
            "statements (issuer, jti, id)": (
                f"SELECT {recipient}, pg_temp.hash64('jti', i), pg_temp.hash64('request', i)"
                f" FROM generate_series(0, {leaves} - 1) i"
            ),
            "answers (statement, token_hash, grant_id, receipt, cfrags, lapses_at)": (
                "SELECT pg_temp.hash64('answer', i), pg_temp.hash('token', i), pg_temp.hash64('grant', i),"
                f" pg_temp.chars({bytes_of.receipt}, i), CASE WHEN i % 10 = 0 THEN pg_temp.octets(359, i) END,"
                f" CASE WHEN i % 10 = 0 THEN {_END} END FROM generate_series(0, {g} - 1) i"
            ),
        }
        | _log(leaves)
        | _events(leaves, p, bytes_of.event)
    )


def _log(leaves: int) -> dict[str, str]:
    return {
        "log_entries (index, data, leaf)": (
            "SELECT i, pg_temp.hash('commitment', i), sha256('\\x00'::bytea || pg_temp.hash('commitment', i))"
            f" FROM generate_series(0, {leaves} - 1) i"
        ),
        "log_nodes (level, index, hash)": (
            "SELECT l, i, pg_temp.hash('node' || l, i) FROM generate_series(1, 40) l,"
            f" LATERAL generate_series(0, ({leaves}::bigint >> l) - 1) i"
        ),
    }


def _events(leaves: int, patients: int, octets: int) -> dict[str, str]:
    return {
        "log_events (subject, n, entry, actor, salt, text)": (
            f"SELECT pg_temp.did('patient', i % {patients}), i / {patients} + 1, i + 1,"
            f" pg_temp.did('patient', i % {patients}), pg_temp.hash('salt', i), pg_temp.chars({octets}, i)"
            f" FROM generate_series(0, {leaves} - 1) i"
        ),
        "log_heads (subject, n, commitment)": (
            f"SELECT pg_temp.did('patient', i), ({leaves} - 1 - i) / {patients} + 1, pg_temp.hash('commitment', i)"
            f" FROM generate_series(0, {patients} - 1) i"
        ),
    }


# Those of primary keys and unique constraints stay, since foreign keys hang on them.
_INDEXES = """
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
WHERE relnamespace = 'public'::regnamespace AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""

_TABLES = {"registry": _registry, "records": _records, "proxy": _proxy}


async def fill(superuser_url: str, service: Kind, size: Strangers, log_key: SigningKey) -> None:
    """Fill the empty tables of one service, sign its log with the service's key, and have Postgres look at the tables.

    `superuser_url` leads to the service's database. Raises asyncpg's errors, such as that of a table that is not empty.
    """
    connection = await asyncpg.connect(superuser_url)
    try:
        await connection.execute("SET session_replication_role = replica; SET synchronous_commit = off")
        octets = secrets.token_bytes(POOL_BYTES)
        await connection.execute(_FUNCTIONS.format(octets=f"\\x{octets.hex()}", span=POOL_BYTES - 10_000))
        # Building an index over rows that are there takes a fraction of the time that filling it with them takes.
        indexes = await connection.fetch(_INDEXES)
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['name']}")
        for table, rows in _TABLES[service](size).items():
            await connection.execute(f"INSERT INTO {table} {rows}")
        for index in indexes:
            await connection.execute(index["definition"])
        await _sign_log(superuser_url, service, log_key)
        # Sets the visibility map as well, which autovacuum would have done long since in a database that grew slowly.
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def rows_of(superuser_url: str) -> Mapping[str, tuple[int, int]]:
    """Of each table that has been filled: how many rows it has, and its bytes with those of its indexes."""
    connection = await asyncpg.connect(superuser_url)
    try:
        rows = await connection.fetch(
            "SELECT relname, reltuples::bigint AS rows, pg_total_relation_size(oid) AS octets FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND reltuples > 0 ORDER BY relname"
        )
    finally:
        await connection.close()
    return {row["relname"]: (row["rows"], row["octets"]) for row in rows}


async def _sign_log(url: str, service: Kind, key: SigningKey) -> None:
    """What the service would have signed last, so that it goes on from there. A proxy's log has no witnesses."""
    database = Database(url, application_name="populate", pool_size=1)
    async with database.transaction() as session:
        size = await tree.places(session)
        root = root_of(size, await tree.nodes(session, needed_for_root(size)))
        note = sign_checkpoint(key, service, size, root)
        await tree.add_checkpoint(session, size, root, note, published=service == "proxy")
    await database.dispose()
