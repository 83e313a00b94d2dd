"""Which form of its tables a release of a service needs.

The revisions of a service's migrations are numbers of four digits, in one line, and the file's name begins with its
revision. So two of them can be compared without loading the migrations.
"""

from __future__ import annotations

import re
from pathlib import Path

_FILE = re.compile(r"([0-9]{4})_[a-z0-9_]+\.py")


def newest_revision(service: str) -> str:
    """The revision of the newest migration that this release has; raises ValueError for a service without any."""
    # By path, for shared code must not know the services.
    return newest_in(Path(__file__).parents[2] / "services" / service / "migrations" / "versions")


def newest_in(versions: Path) -> str:
    """The same for a folder of migrations."""
    found = [match[1] for path in versions.glob("*.py") if (match := _FILE.fullmatch(path.name))]
    if not found:
        raise ValueError(f"there are no migrations in {versions}")
    return max(found)
