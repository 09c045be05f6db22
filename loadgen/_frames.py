"""Messages between Locust and its engine: a four-byte length, then one msgpack map with an `op`."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

_LENGTH = struct.Struct("!I")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def pack(message: dict[str, Any]) -> bytes:
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Whole messages out of whatever pieces a socket delivers."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        self._buffer += data
        found: list[dict[str, Any]] = []
        position = 0
        while len(self._buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, position)
            end = position + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(_decoder.decode(self._buffer[position + _LENGTH.size : end]))
            position = end
        del self._buffer[:position]
        return found
