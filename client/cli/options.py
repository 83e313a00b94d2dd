"""Options that several commands share, described once."""

from __future__ import annotations

from typing import Annotated

import typer

PurposeOption = Annotated[str, typer.Option(help="Purpose of use (HL7): TREAT, ETREAT, HPAYMT, HRESCH, PATRQT, …")]

ActionsOption = Annotated[
    list[str] | None, typer.Option(help="read, append or amend; may be repeated.", show_default="read")
]

OnlyScopesOption = Annotated[
    list[str] | None, typer.Option(help="Only this scope; may be repeated.", show_default="all")
]

OnlyRecordsOption = Annotated[
    list[str] | None, typer.Option(help="Only this record (full id); may be repeated.", show_default="all")
]

ThresholdOption = Annotated[
    int | None, typer.Option(help="How many proxies must take part.", show_default="the platform's", min=1)
]
