"""The binary frames of a sample connection: a 40-byte little-endian header, then the payload.

    offset  type  field
         0  u32   magic "IONS"
         4  u8    version 1
         5  u8    type: 1 samples, 2 gap, 3 end
         6  u16   flags: 1 muted, 2 clipped, 4 stimulus, 8 filter restarted, 16 cautery
         8  u64   seq of the frame at its source
        16  u64   case sample index of the first sample
        24  u32   rows in the frame; of a gap: case samples lost
        28  u16   channels
        30  u8    payload: 0 none, 1 int32 counts, 2 float32 uV
        31  u8    cause of a gap or end: 1 device, 2 usb, 3 host, 4 this reader was too slow, 5 new session, 6 closing,
                  7 a test or the case it belongs to has ended
        32  u32   payload bytes after this header
        36  u32   reserved, 0

Row i of a frame is case sample `first + i * step`; `step` is in the layout line, 1 but for emg_audio.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

import msgspec

HEADER = struct.Struct("<IBBHQQIHBBII")
MAGIC = int.from_bytes(b"IONS", "little")
DTYPE_CODE = {"<i4": 1, "<f4": 2}
_COUNT_MAX = 2**32 - 1


class FrameType(IntEnum):
    SAMPLES = 1
    GAP = 2
    END = 3


class FrameFlag(IntFlag):
    NONE = 0
    MUTED = 1  # emg_audio: the samples of the spans named by STIMULUS and CAUTERY are 0.0
    CLIPPED = 2  # an input reached the converter's end stop in this stretch
    STIMULUS = 4  # a stimulus window lies in it: held before the filter
    RESTARTED = 8  # the filter began anew with the first row: its past is another one than the stream's
    CAUTERY = 16  # cautery was sensed in it


class Cause(IntEnum):
    NONE = 0
    DEVICE = 1
    USB = 2
    HOST = 3
    SUBSCRIBER = 4
    SESSION = 5
    CLOSING = 6
    STOPPED = 7


_SAMPLES, _NO_CAUSE = int(FrameType.SAMPLES), int(Cause.NONE)  # plain: an enum's member costs a frame a microsecond


class Frame(msgspec.Struct, frozen=True, gc=False):
    """Made once and shared by all readers: the header and, of samples, the payload (memoryviews of single bytes).
    It covers case samples [first, stop); size: bytes of all parts."""

    parts: tuple[bytes | memoryview, ...]
    first: int
    stop: int
    gap: bool
    size: int

    @property
    def seq(self) -> int:
        return int.from_bytes(self.parts[0][8:16], "little")


def samples_frame(
    seq: int, first: int, n: int, step: int, channels: int, dtype: int, payload: bytes | memoryview, flags: int
) -> Frame:
    size = len(payload)
    header = HEADER.pack(MAGIC, 1, _SAMPLES, flags, seq, first, n, channels, dtype, _NO_CAUSE, size, 0)
    return Frame((header, payload) if size else (header,), first, first + n * step, False, HEADER.size + size)


def gap_header(seq: int, first: int, lost: int, channels: int, cause: int) -> bytes:
    """One gap; more than 2**32 - 1 samples become several frames."""
    out = b""
    while True:
        part = min(lost, _COUNT_MAX)
        out += HEADER.pack(MAGIC, 1, FrameType.GAP, 0, seq, first, part, channels, 0, cause, 0, 0)
        first, lost = first + part, lost - part
        if lost <= 0:
            return out


def end_frame(seq: int, first: int, channels: int, cause: int) -> Frame:
    header = HEADER.pack(MAGIC, 1, FrameType.END, 0, seq, first, 0, channels, 0, cause, 0, 0)
    return Frame((header,), first, first, True, HEADER.size)
