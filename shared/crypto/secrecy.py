"""What every holder of a secret has in common: it cannot be shown by accident."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """Base of objects that hold a secret: nothing of it reaches a log, a traceback, a pickle or a copy.

    Equality stays identity, since comparing secrets by value invites timing leaks and hashing them invites caches.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: secret>"

    def __format__(self, format_spec: str) -> str:
        return format(repr(self), format_spec)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # `copy.copy`, `copy.deepcopy` and every pickle protocol come through here.
        raise TypeError(f"{type(self).__name__} holds a secret and can be neither pickled nor copied.")
