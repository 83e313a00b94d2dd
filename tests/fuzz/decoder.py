"""What a decoder of untrusted bytes promises, and the one execution that both the tests and `make fuzz-parsers` make.

A decoder may refuse with the exceptions that it declares and with no other; it may not think for ever; and where its
format has one spelling for each value, what it accepts encodes to the very bytes that came in.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from shared.errors import PcehrError

SECONDS = 10.0
"""Of the process's own time, so that a busy machine makes nobody guilty. Inputs are bounded; an execution takes
milliseconds."""


@dataclass(frozen=True)
class Decoder:
    """One way in for bytes.

    `use` takes the bytes as far as the platform would take them; it returns what the value encodes to where the format
    has one spelling, and None where it has several. `samples` are inputs that it accepts, `refusals` the
    exceptions that its documentation declares. `share` is how much of the usual number of executions it gets where
    there is little time, because each of its own takes long.
    """

    name: str
    use: Callable[[bytes], bytes | None]
    samples: Sequence[bytes]
    refusals: tuple[type[Exception], ...] = (PcehrError,)
    share: float = 1.0


class Broken(AssertionError):
    """A decoder did what it may not do with these bytes."""

    def __init__(self, decoder: Decoder, data: bytes, what: str) -> None:
        super().__init__(f"{decoder.name}: {what} on {len(data)} bytes that begin with {data[:60]!r}")
        self.data = data


class TooLong(BaseException):
    """No `Exception`, so that no handler of the decoder's takes it for its own."""


def execute(decoder: Decoder, data: bytes) -> bool:
    """Whether the decoder accepts these bytes; raises `Broken`."""
    try:
        with _watched():
            again = decoder.use(data)
    except decoder.refusals:
        return False
    except TooLong:
        raise Broken(decoder, data, f"not done after {SECONDS:g} seconds of computing") from None
    except Exception as error:
        raise Broken(decoder, data, f"an undeclared {type(error).__name__}") from error
    if again is not None and again != data:
        raise Broken(decoder, data, "accepts a second spelling")
    return True


@contextmanager
def _watched() -> Iterator[None]:
    before = signal.signal(signal.SIGVTALRM, _too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _too_long(_: int, __: FrameType | None) -> NoReturn:
    raise TooLong
