"""The transparency log, with the key-entries and scope-keys that were accepted before there was one.

The entries take over the order in which the tables happen to give them; what is in the tree from then on stays there.
"""

from alembic import op

from shared.db.log.migration import create_log_tables

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_log_tables(events=False)
    # docs/spec.md, section 11: label || statement id, and the leaf's hash of both.
    op.execute(
        r"""
        INSERT INTO log_entries (data, leaf)
        SELECT data, sha256('\x00'::bytea || data) FROM (
          SELECT sha256('pcehr/v1/label'::bytea || '\x00'::bytea || convert_to(did, 'UTF8')) || id AS data
          FROM key_entries
          UNION ALL
          SELECT sha256(
            'pcehr/v1/label'::bytea || '\x00'::bytea || convert_to(patient, 'UTF8') || '\x00'::bytea
            || convert_to(translate(encode(scope, 'base64'), '+/=', '-_'), 'UTF8')
          ) || id
          FROM scope_keys
        ) AS entries
        """
    )
