"""Why the platform cannot run here; every sentence says what to do next."""

from __future__ import annotations

from shared.errors import Conflict, NotFound, PcehrError, Refused


class AlreadyRunning(Conflict):
    code = "already_running"
    title = "A platform already runs in this folder."


class PortTaken(Conflict):
    code = "port_taken"
    title = "A port that the platform needs is taken by another program."


class HomeMismatch(Refused):
    """Ports, proxies and the database of a home are fixed, because signed statements name them."""

    code = "home_mismatch"
    title = "This folder holds a platform that was set up in another way."


class BrokenHome(Refused):
    code = "broken_home"
    title = "The folder of the platform is damaged."


class ServiceNotStarted(PcehrError):
    """A service ended while it started, or was not ready in time; the detail ends with its log."""

    code = "service_not_started"
    status = 503
    title = "A service of the platform could not be started."


class UnknownService(NotFound):
    code = "unknown_service"
    title = "The platform has no service of this name."
