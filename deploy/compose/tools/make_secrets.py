"""Makes the secrets of a stack: `make_secrets.py FOLDER`, with one folder inside for each container that needs some.

A service's folder holds what its settings call secrets (`shared.web.settings`): the address of its database with the
password in it, the keys that tokens and checkpoints are signed with, the names of the proxies that the registry admits
and of the records service's log, each proxy's seed. The folder `postgres` holds the superuser's password and one for
each role. What is there stays as it is, so this may be run at every start, and a
proxy is added by giving it a folder.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from shared.crypto.derivation import Seed
from shared.crypto.signing import SigningKey
from shared.did import did_from_key
from shared.encoding import b64url, from_b64url
from shared.transparency.checkpoints import origin_of

SERVICES_GROUP = 10001
"""The group that the services run as (see the Dockerfile)."""

DATABASE_HOST = "postgres:5432"


def random_text() -> str:
    """32 random bytes in base64url."""
    return b64url(secrets.token_bytes(32))


def keep(path: Path, make: Callable[[], str]) -> str:
    """The secret in the file, made if there is none yet."""
    try:
        return path.read_text("ascii")
    except FileNotFoundError:
        text = make()
        replace(path, text)
        return text


def replace(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, however this ends."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        if path.parent.name == "postgres":
            # Which uid Postgres has is its image's affair, and no other container has this folder.
            os.fchmod(descriptor, 0o444)
        else:
            os.fchmod(descriptor, 0o440)
            os.fchown(descriptor, -1, SERVICES_GROUP)
        os.fsync(descriptor)
    unfinished.rename(path)


def proxy_did(folder: Path) -> str:
    """The id of the proxy whose seed lies in the folder (docs/spec.md, section 3)."""
    seed = Seed.from_bytes(from_b64url(keep(folder / "pcehr_seed", random_text), 32))
    return did_from_key(bytes(SigningKey.from_bytes(seed.derive("identity/0", 32)).verify_key))


def records_log(folder: Path) -> str:
    """The origin of the log whose signing key lies in the folder (docs/spec.md, section 11)."""
    seed = from_b64url(keep(folder / "pcehr_log_signing_key", random_text), 32)
    return origin_of("records", SigningKey.from_bytes(seed).verify_key)


def main(folder: Path) -> None:
    postgres, registry = folder / "postgres", folder / "registry"
    proxies = sorted(folder.glob("proxy-*"))
    keep(postgres / "superuser", random_text)
    for service in (registry, folder / "records", *proxies):
        role = service.name.replace("-", "_")
        password = keep(postgres / f"{role}_password", random_text)
        replace(service / "pcehr_database_url", f"postgresql://{role}:{password}@{DATABASE_HOST}/{role}")
    keep(registry / "pcehr_token_signing_key", random_text)
    keep(registry / "pcehr_log_signing_key", random_text)
    replace(registry / "pcehr_records_log", records_log(folder / "records"))
    replace(registry / "pcehr_admitted_proxies", ",".join(proxy_did(proxy) for proxy in proxies))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
