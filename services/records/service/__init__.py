"""Use cases of the records service: what may be asked of it, without a word about HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from services.records.service.bodies import Bodies
from services.records.service.consents import Consents
from services.records.service.disclosures import Disclosures
from services.records.service.notices import NoticeStreams
from services.records.service.reading import Reading
from services.records.service.writing import Writing


@dataclass(frozen=True)
class RecordsService:
    """The use cases by what they are about."""

    writing: Writing
    reading: Reading
    bodies: Bodies
    consents: Consents
    disclosures: Disclosures
    notices: NoticeStreams
