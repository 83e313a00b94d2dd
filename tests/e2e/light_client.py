"""`python -m tests.e2e.light_client` is `pcehr` whose new keystores have passphrases that cost little to try."""

from __future__ import annotations

from functools import partial

from client import cli, keystore

if __name__ == "__main__":
    keystore.create = partial(keystore.create, cost=keystore.LIGHT)
    cli.main()
