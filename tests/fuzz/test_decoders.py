"""Every decoder under some hundred changed inputs; `make fuzz-parsers` tries a million of each, guided by coverage.

PCEHR_FUZZ_SEED takes the seed of a run that failed; without it every run of the suite tries the same inputs.
"""

from __future__ import annotations

import os

import pytest

from tests.fuzz.campaign import campaign
from tests.fuzz.decoder import Decoder
from tests.fuzz.decoders import ALL

EXECUTIONS = 800
SEED = int(os.environ.get("PCEHR_FUZZ_SEED", "20261128"))


@pytest.mark.parametrize("decoder", ALL, ids=lambda decoder: decoder.name)
def test_refuses_or_accepts_as_declared(decoder: Decoder) -> None:
    campaign(decoder, max(20, int(EXECUTIONS * decoder.share)), SEED)
