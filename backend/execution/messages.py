"""The words between the program and its execution child: a JSON header and raw bytes, framed by lengths.

Standard library only: the child imports it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

_LENGTH = struct.Struct(">I")
LENGTH_BYTES = _LENGTH.size
MOST_HEADER_BYTES = 64 * 1024 * 1024


def pack(header: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """One message: the header's length, the header, and the blobs, whose sizes the header carries."""
    text = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode("ascii")
    return b"".join([_LENGTH.pack(len(text)), text, *blobs])


def header_length(prefix: bytes) -> int:
    """Raises ValueError where what came is no message of ours."""
    length = int(_LENGTH.unpack(prefix)[0])
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes: this is no message")
    return length


def cut(header: dict[str, Any], body: bytes) -> list[bytes]:
    """The blobs of a message, cut out of what follows its header."""
    blobs, start = [], 0
    for size in header["blobs"]:
        blobs.append(body[start : start + size])
        start += size
    return blobs


def write(stream: BinaryIO, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Send one message."""
    stream.write(pack(header, blobs))
    stream.flush()


def read(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """The next message, or None where the stream has ended. Raises ValueError for half a message."""
    prefix = stream.read(LENGTH_BYTES)
    if not prefix:
        return None
    header: dict[str, Any] = json.loads(stream.read(header_length(prefix)))
    body = stream.read(sum(header["blobs"]))
    return header, cut(header, body)


def unpack(data: bytes) -> dict[str, Any]:
    """The header of the first message in `data`. Raises ValueError."""
    header: dict[str, Any] = json.loads(
        data[LENGTH_BYTES : LENGTH_BYTES + header_length(data[:LENGTH_BYTES])]
    )
    return header
