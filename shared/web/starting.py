"""How every service starts: logs first, then its settings, and a line for each setting that does not fit."""

from __future__ import annotations

import logging
from typing import TypeVar

from pydantic import ValidationError

from shared.web.logs import configure
from shared.web.settings import LogSettings, ServiceSettings, SettingsUnreadable

S = TypeVar("S", bound=ServiceSettings)
log = logging.getLogger("pcehr.settings")


def settings_from_environment(service: str, kind: type[S]) -> S:
    """Configure the logs of this process and read the settings of `service`; exits with status 1 where they do not fit.

    Called by a composition root and never at import, so that a service logs in one way however it is started.
    """
    configure(service)
    try:
        logs = LogSettings()
        configure(service, logs.log_format, logs.log_level)
        return kind()
    except ValidationError as error:
        # Only the name and what is wrong; the value may be a secret.
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            name = "_".join(map(str, item["loc"])).upper()
            named = name if name.startswith("PCEHR_") else f"PCEHR_{name}"
            log.error("a setting does not fit", extra={"setting": named, "problem": item["msg"]})
    except SettingsUnreadable as error:
        log.error("the settings cannot be read", extra={"problem": str(error)})
    raise SystemExit(1)
