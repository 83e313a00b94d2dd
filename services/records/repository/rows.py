"""Many rows in one statement that is the same for any number of them: arrays go in, and `unnest` makes rows of them.

With a list of values the text of the statement grows with the rows, so that SQLAlchemy writes it anew and Postgres
plans it anew for every batch; that took most of the service's time for storing a chart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, any_, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute
from sqlalchemy.sql.selectable import TableValuedAlias


def given(table: type[DeclarativeBase], rows: Sequence[Mapping[str, object]]) -> TableValuedAlias:
    """At least one row, as a table of the columns that the first one has; in their order."""
    columns = [table.__table__.c[name] for name in rows[0]]
    arrays = [bindparam(f"{one.name}_", [row[one.name] for row in rows], type_=ARRAY(one.type)) for one in columns]
    named = [column(one.name, one.type) for one in columns]
    return func.unnest(*arrays).table_valued(*named, name="given").render_derived()


def insert_rows(table: type[DeclarativeBase], rows: Sequence[Mapping[str, object]]) -> Insert:
    """An insertion of at least one row, all with the same members, in this order."""
    from_arrays: Select[Any] = select(*given(table, rows).c)
    return insert(table).from_select(list(rows[0]), from_arrays)


def among(attribute: InstrumentedAttribute[Any], values: Iterable[object]) -> ColumnElement[bool]:
    """Whether a column has one of these values."""
    return attribute == any_(bindparam(None, list(values), type_=ARRAY(attribute.type)))
