"""The root of all commands: where global options may stand, and where every error ends up."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from typer import Abort
from typer.core import TyperGroup

from client.cli import failures
from client.cli.output import Output

_FLAGS = ("--json",)
_WITH_VALUE = ("--profile", "--registry", "--passphrase-file")

_ID_LIKE_AN_OPTION = re.compile(r"-[A-Za-z0-9_-]{42}")
"""A statement's id is base64url, and one in 64 begins with a hyphen."""


class Root(TyperGroup):
    """A group whose global options may stand before or after the subcommand, and that shows errors in one way."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        if not logging.getLogger().handlers:
            # Libraries' remarks are for whoever looks for a defect; people get sentences and a hint.
            logging.basicConfig(level=logging.INFO if os.environ.get("PCEHR_DEBUG") == "1" else logging.CRITICAL)
        arguments = arrange(sys.argv[1:] if args is None else args)
        try:
            status = super().main(arguments, prog_name or "pcehr", complete_var, False, windows_expand_args, **extra)
        except BrokenPipeError:
            # The reader of our output has gone; there is nobody to tell.
            sys.stderr.close()
            status = 1
        except Abort:
            status = failures.INTERRUPTED
        except Exception as error:
            status = failures.show(Output(as_json="--json" in arguments), error)
        status = status if isinstance(status, int) else 0
        if status == failures.INTERRUPTED:
            failures.show(Output(as_json="--json" in arguments), KeyboardInterrupt())
        if standalone_mode:
            sys.exit(status)
        return status


def arrange(arguments: Sequence[str]) -> list[str]:
    """Put global options first, and take the leading hyphens from ids, which commands find without them too."""
    first: list[str] = []
    rest: list[str] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        name, equals, _ = argument.partition("=")
        if argument == "--":
            rest += [argument, *remaining]
            break
        if argument in _FLAGS or (equals and name in _WITH_VALUE):
            first.append(argument)
        elif argument in _WITH_VALUE and remaining:
            first += [argument, remaining.pop(0)]
        elif _ID_LIKE_AN_OPTION.fullmatch(argument):
            rest.append(argument.lstrip("-"))
        else:
            rest.append(argument)
    return [*first, *rest]
