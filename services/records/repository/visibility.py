"""Who may see what, as conditions in SQL; docs/spec.md section 7 has the rule in words."""

from __future__ import annotations

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, exists, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import aliased
from sqlalchemy.sql.expression import cast

from services.records.models import (
    Disclosed,
    GrantCapsule,
    GrantProxyRow,
    GrantRow,
    GrantScopeRow,
    RecordVersion,
    RevocationRow,
)
from shared.wire import Action


def not_revoked() -> ColumnElement[bool]:
    """The grant of the surrounding query has no tombstone by its patient."""
    return ~exists().where(RevocationRow.issuer == GrantRow.patient, RevocationRow.grant_id == GrantRow.id)


def holds(now: int) -> ColumnElement[bool]:
    """The grant of the surrounding query is in its window and not revoked."""
    return and_(GrantRow.not_before <= now, GrantRow.expires_at > now, not_revoked())


def active() -> ColumnElement[bool]:
    """Enough proxies hold their share of the grant of the surrounding query."""
    stored = (
        select(func.count())
        .select_from(GrantProxyRow)
        .where(GrantProxyRow.grant_id == GrantRow.id, GrantProxyRow.stored.is_not(None))
        .correlate(GrantRow)
        .scalar_subquery()
    )
    return or_(GrantRow.threshold == 0, stored >= GrantRow.threshold)


def shows_records() -> ColumnElement[bool]:
    """The grant of the surrounding query allows `read` or `amend`."""
    overlap: ColumnElement[bool] = GrantRow.actions.overlap(cast([Action.READ.value, Action.AMEND.value], ARRAY(TEXT)))
    return overlap


def covered(grant: SQLColumnExpression[str]) -> ColumnElement[bool]:
    """The grant covers the version of the surrounding query: its scope and epoch and, where that entry is limited,
    the capsule of one of the record's versions."""
    sibling = aliased(RecordVersion)
    lists_record = (
        exists()
        .where(
            GrantCapsule.grant_id == GrantScopeRow.grant_id,
            GrantCapsule.entry == GrantScopeRow.entry,
            sibling.capsule_hash == GrantCapsule.capsule_hash,
            sibling.patient == RecordVersion.patient,
            sibling.record == RecordVersion.record,
        )
        .correlate(GrantScopeRow, RecordVersion)
    )
    return _entry_of(grant, lists_record)


def opened(grant: SQLColumnExpression[str]) -> ColumnElement[bool]:
    """The proxies would re-encrypt the capsule of this very version under the grant."""
    lists_version = (
        exists()
        .where(
            GrantCapsule.grant_id == GrantScopeRow.grant_id,
            GrantCapsule.entry == GrantScopeRow.entry,
            GrantCapsule.capsule_hash == RecordVersion.capsule_hash,
        )
        .correlate(GrantScopeRow, RecordVersion)
    )
    return _entry_of(grant, lists_version)


def visible_to(caller: str, now: int) -> ColumnElement[bool]:
    """The caller may see the version of the surrounding query."""
    by_grant = (
        exists()
        .where(
            GrantRow.patient == RecordVersion.patient,
            GrantRow.recipient == caller,
            holds(now),
            active(),
            shows_records(),
            covered(GrantRow.id),
        )
        .correlate(RecordVersion)
    )
    return or_(RecordVersion.patient == caller, by_grant, _as_author(caller, now))


def body_visible_to(caller: str, now: int) -> ColumnElement[bool]:
    """The caller may fetch the body of the version of the surrounding query: as its patient, as its author, or since
    the version has been disclosed to it under a grant that still holds."""
    disclosed = (
        exists()
        .where(
            Disclosed.patient == RecordVersion.patient,
            Disclosed.record == RecordVersion.record,
            Disclosed.version == RecordVersion.version,
            GrantRow.id == Disclosed.grant_id,
            GrantRow.recipient == caller,
            holds(now),
            active(),
        )
        .correlate(RecordVersion)
    )
    return or_(RecordVersion.patient == caller, _as_author(caller, now), disclosed)


def _as_author(caller: str, now: int) -> ColumnElement[bool]:
    return and_(
        RecordVersion.author == caller,
        exists()
        .where(
            GrantRow.patient == RecordVersion.patient,
            GrantRow.recipient == caller,
            holds(now),
            GrantScopeRow.grant_id == GrantRow.id,
            GrantScopeRow.scope == RecordVersion.scope,
        )
        .correlate(RecordVersion),
    )


def _entry_of(grant: SQLColumnExpression[str], listed: ColumnElement[bool]) -> ColumnElement[bool]:
    return (
        exists()
        .where(
            GrantScopeRow.grant_id == grant,
            GrantScopeRow.scope == RecordVersion.scope,
            GrantScopeRow.epoch == RecordVersion.epoch,
            or_(~GrantScopeRow.limited, listed),
        )
        .correlate(RecordVersion, GrantRow)
    )
