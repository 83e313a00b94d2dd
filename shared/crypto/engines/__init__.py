"""Which implementation of Umbral is running.

`umbral-pre` (Rust) is preferred wherever it has a wheel, `umbral` (pyUmbral) runs everywhere; both make and read the
same bytes. The choice is made at first use, from the environment variable `PCEHR_UMBRAL_ENGINE`:

* `auto` (the default): `umbral-pre` if it is installed, else `umbral`;
* `umbral-pre` or `umbral`: that one, or `EngineUnavailable`.

Tests and benchmarks hold one implementation against the other in one process with `use_engine`.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared.crypto.engines.protocol import Engine, Handle
from shared.crypto.errors import EngineUnavailable

__all__ = ["ENGINE_NAMES", "ENGINE_VARIABLE", "Engine", "Handle", "current_engine", "load_engine", "use_engine"]

ENGINE_VARIABLE = "PCEHR_UMBRAL_ENGINE"

_MODULES = {
    "umbral-pre": "shared.crypto.engines.rust",
    "umbral": "shared.crypto.engines.python",
}
ENGINE_NAMES = tuple(_MODULES)
"""The known engines, the preferred one first."""

_lock = threading.RLock()
_loaded: dict[str, Engine] = {}


class _Selection:
    """The engine of this process. One object rather than two globals, so that both change under one lock."""

    chosen: Engine | None = None
    forced: Engine | None = None


_selection = _Selection()


def load_engine(name: str) -> Engine:
    """Return the engine called `name`, importing its library on first use.

    Loading one engine never changes the other, so both can serve in one process. Raises `EngineUnavailable` for an
    unknown name and for a library that is not installed.
    """
    if name not in _MODULES:
        raise EngineUnavailable(f"{ENGINE_VARIABLE} is one of auto, {', '.join(ENGINE_NAMES)}.")
    with _lock:
        if name not in _loaded:
            try:
                module = importlib.import_module(_MODULES[name])
            except ImportError as error:
                raise EngineUnavailable(
                    f"The Python package {name} is not installed for this interpreter; "
                    f"install it, or set {ENGINE_VARIABLE}=auto."
                ) from error
            _loaded[name] = module.create()
        return _loaded[name]


def current_engine() -> Engine:
    """The engine that new objects are made with; chosen on the first call and kept.

    Raises `EngineUnavailable` when the environment names an unknown or missing engine, or when none is installed.
    """
    engine = _selection.forced or _selection.chosen
    if engine is None:
        with _lock:
            engine = _selection.chosen = _from_environment()
    return engine


@contextmanager
def use_engine(name: str) -> Iterator[Engine]:
    """Use the engine called `name` for the whole process within the block; for tests and benchmarks.

    Blocks nest. Objects made under one engine stay usable under the other, at the price of a second parse. The
    setting belongs to the process and not to a thread or task, so two blocks must not overlap in time.
    """
    engine = load_engine(name)
    previous, _selection.forced = _selection.forced, engine
    try:
        yield engine
    finally:
        _selection.forced = previous


def _from_environment() -> Engine:
    wanted = os.environ.get(ENGINE_VARIABLE, "auto")
    if wanted != "auto":
        return load_engine(wanted)
    for name in ENGINE_NAMES:
        try:
            return load_engine(name)
        except EngineUnavailable:
            continue
    raise EngineUnavailable("Neither umbral-pre nor umbral is installed for this interpreter.")
