"""Records services with a race in them, for the checker to find: `tests.races.faulty:without_second_look` and so on."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from services.records.main import create
from services.records.service.disclosures import Disclosures
from services.records.service.statements import Statements


def without_second_look() -> FastAPI:
    """What leaves is written down without a last look at the grant."""

    async def write_down(self: Any, repository: Any, found: Any, request: Any, entry: Any) -> None:
        _, new = await repository.journal.accept([request], self._statements.clock())
        if new:
            await repository.reading.note_disclosed(found.terms.id, found.terms.patient, found.versions)
            await repository.journal.log([entry])

    Disclosures._write_down = write_down  # type: ignore[method-assign]
    return create()


def with_new_answers() -> FastAPI:
    """A statement that comes again is dated anew."""

    async def earlier_answer(self: Statements, statement: Any) -> None:
        return None

    Statements.earlier_answer = earlier_answer  # type: ignore[assignment,method-assign]
    return create()
