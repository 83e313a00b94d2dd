"""The registry: every decoder, by what it decodes."""

from __future__ import annotations

from tests.fuzz.decoder import Decoder
from tests.fuzz.decoders import client, crypto, encodings, envelopes, logs, services, statements, wire

ALL: tuple[Decoder, ...] = (
    *encodings.DECODERS,
    *crypto.DECODERS,
    *envelopes.DECODERS,
    *statements.DECODERS,
    *logs.DECODERS,
    *wire.DECODERS,
    *client.DECODERS,
    *services.DECODERS,
)

BY_NAME: dict[str, Decoder] = {decoder.name: decoder for decoder in ALL}
