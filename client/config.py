"""Where a person's data lives on this machine, and which platform it talks to.

    <home>/                     PCEHR_HOME; else /var/lib/pcehr for root; else the user's data folder
    <home>/profiles/<name>/     one profile: keystore.json (secret, encrypted) and state.db (not secret)
    <home>/platform.json        written by a platform running on this machine; member `registry_url`

The registry's address comes from the first of: the flag, PCEHR_REGISTRY_URL, the profile's state, platform.json,
http://127.0.0.1:8400.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from client.errors import InvalidProfile, InvalidSetting, UnexpectedAnswer
from client.state import ClientState

HOME_VARIABLE = "PCEHR_HOME"
REGISTRY_VARIABLE = "PCEHR_REGISTRY_URL"
CA_FILE_VARIABLE = "PCEHR_TLS_CA_FILE"
REQUIRE_HTTPS_VARIABLE = "PCEHR_REQUIRE_HTTPS"
WITNESS_FAULTS_VARIABLE = "PCEHR_WITNESS_FAULTS"
ROOT_HOME = Path("/var/lib/pcehr")
DEFAULT_REGISTRY_URL = "http://127.0.0.1:8400"
DEFAULT_PROFILE = "default"

_PROFILE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MAX_PROFILE_NAME = 64
_MAX_PLATFORM_FILE = 65_536


@dataclass(frozen=True)
class Profile:
    """The folder of one profile and the two files in it."""

    name: str
    folder: Path

    @property
    def keystore(self) -> Path:
        return self.folder / "keystore.json"

    @property
    def state(self) -> Path:
        return self.folder / "state.db"

    @property
    def exists(self) -> bool:
        return self.keystore.exists()

    def make_folder(self) -> None:
        """Make the folder, closed to other users."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def home() -> Path:
    """The data folder; it need not exist yet."""
    chosen = os.environ.get(HOME_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return ROOT_HOME
    return platformdirs.user_data_path("pcehr", appauthor=False)


def profile(name: str = DEFAULT_PROFILE) -> Profile:
    """The profile of this name, whether or not it exists; raises `InvalidProfile` for a name that is no name."""
    if len(name) > _MAX_PROFILE_NAME or not _PROFILE_NAME.fullmatch(name):
        raise InvalidProfile
    return Profile(name=name, folder=home() / "profiles" / name)


def profiles() -> list[Profile]:
    """The profiles on this machine that have a keystore, by name."""
    folder = home() / "profiles"
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in folder.iterdir() if _PROFILE_NAME.fullmatch(entry.name))
    return [found for found in map(profile, names) if found.exists]


def platform_file() -> Path:
    """Where a platform that runs on this machine says how it is reached."""
    return home() / "platform.json"


def registry_url(flag: str | None = None, state: ClientState | None = None) -> str:
    """The registry's base URL, by the precedence in the module's docstring."""
    chosen = flag or os.environ.get(REGISTRY_VARIABLE) or (state.registry_url if state else None)
    return (chosen or _running_platform() or DEFAULT_REGISTRY_URL).rstrip("/")


def witness_faults() -> int:
    """How many of the witnesses may lie, as the owner of this machine assumes; the platform's own figure counts too.

    Raises `InvalidSetting`.
    """
    said = os.environ.get(WITNESS_FAULTS_VARIABLE) or "0"
    if not re.fullmatch(r"[0-9]{1,2}", said):
        raise InvalidSetting(f"{WITNESS_FAULTS_VARIABLE} is not a number from 0 to 99.")
    return int(said)


def ca_file() -> Path | None:
    """The certificates, in PEM, of those who issue the services' certificates; None for those that everybody trusts."""
    chosen = os.environ.get(CA_FILE_VARIABLE)
    return Path(chosen).expanduser() if chosen else None


def require_https() -> bool:
    """Whether services are asked by https alone, but for those on this machine; raises `InvalidSetting`."""
    said = os.environ.get(REQUIRE_HTTPS_VARIABLE, "").lower()
    if said not in ("", "0", "1", "false", "true"):
        raise InvalidSetting(f"{REQUIRE_HTTPS_VARIABLE} is neither true nor false.")
    return said in ("1", "true")


def _running_platform() -> str | None:
    try:
        text = platform_file().read_bytes()[:_MAX_PLATFORM_FILE]
    except FileNotFoundError:
        return None
    try:
        url = json.loads(text)["registry_url"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UnexpectedAnswer(f"{platform_file()} does not say where the registry is.") from None
    return str(url)
