"""The clock as a value, so that tests can set it and nothing reads the time behind a caller's back."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""A function without arguments that returns whole seconds since the Unix epoch (UTC)."""


def system_clock() -> int:
    """Whole seconds since the Unix epoch, as the operating system sees them."""
    return int(time.time())
