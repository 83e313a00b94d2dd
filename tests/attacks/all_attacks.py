"""The whole table; importing it enters every attack."""

from __future__ import annotations

from tests.attacks import consents, disclosures, events, keys, notices, records, registry_log, witness
from tests.attacks.table import TABLE

__all__ = ["TABLE", "consents", "disclosures", "events", "keys", "notices", "records", "registry_log", "witness"]
