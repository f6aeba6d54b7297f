"""Writes ionm1 blocks from docs/wire/ionm1.md with struct and zlib alone: the decoder is tested by a stranger."""

from __future__ import annotations

import struct
import zlib

import numpy as np

BOOT, SESSION = 0xB007, 7


def mark(sample: int, kind: int = 1, output: int = 0, slot: int = 0, flags: int = 0, pulse: int = 0, width_us: int = 0,
         nonce: int = 0, set_: int = 0, delivered: int = 0, value: int = 0) -> bytes:
    fields = (sample, kind, output, slot, flags, pulse, width_us, nonce, set_, delivered, value)
    return struct.pack("<QBBBBHHIiiI", *fields)


def encode(counts: np.ndarray, first: int, seq: int, *, session: int = SESSION, boot: int = BOOT, type_: int = 1,
           flags: int = 0, fifo: int = 0, dropped: int = 0, marks: tuple[bytes, ...] = (), aux: int = 0, stim: int = 0,
           trip: int = 0, version: int = 1) -> bytes:
    """`counts` is int32[sample, input] within 24 bits."""
    n, inputs = counts.shape
    head = struct.pack("<IBBHIIQQHHBBHIHHIBBHI", 0x4D4E4F49, version, type_, 64, seq, session, first, first * 50_000,
                       inputs, n, 1, flags, fifo, dropped, len(marks), aux, boot, stim, trip, 0, 0)
    head += struct.pack("<I", zlib.crc32(head))
    body = counts.astype("<i4").reshape(-1, 1).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    block = head + body + b"".join(marks)
    block += struct.pack("<I", zlib.crc32(block))
    return block + bytes(4) if len(block) % 512 == 0 else block


def truth(first: int, n: int, inputs: int) -> np.ndarray:
    """A known count for every (sample, input): any loss, shift or mix-up shows."""
    s = np.arange(first, first + n, dtype=np.int64)[:, None]
    return ((s * 2_654_435 + np.arange(inputs) * 40_503 + 12_345) % (1 << 24) - (1 << 23)).astype(np.int32)
