"""One numeric matrix out of a MATLAB version 5 file: enough for the recordings that a scenario is made of.

In: bytes.  Out: float64[row, column].  Raises ValueError with the place when the file is something else.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15


def _elements(data: bytes, order: str) -> list[tuple[int, bytes]]:
    """(type, payload) of each data element; the small form packs both into eight bytes."""
    found, at = [], 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:
            found.append((kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)]))
            at += 8
            continue
        if at + 8 + size > len(data):
            raise ValueError(f"element at byte {at} says {size} bytes, {len(data) - at - 8} are there")
        found.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size + (0 if kind == _COMPRESSED else -size % 8)
    return found


def read_matrix(data: bytes, name: str) -> npt.NDArray[np.float64]:
    """The real matrix of that name."""
    if len(data) < 136 or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("not a MATLAB version 5 file")
    order = "<" if data[126:128] == b"IM" else ">"
    for kind, body in _elements(data[128:], order):
        if kind == _COMPRESSED:
            kind, body = _elements(zlib.decompress(body), order)[0]
        if kind != _MATRIX:
            continue
        parts = _elements(body, order)
        if len(parts) < 4 or parts[2][1].decode("ascii", "replace") != name:
            continue
        rows, columns = np.frombuffer(parts[1][1], f"{order}i4")[:2]
        if parts[3][0] not in _TYPES:
            raise ValueError(f"{name}: element type {parts[3][0]} is not numeric")
        values = np.frombuffer(parts[3][1], order + _TYPES[parts[3][0]])
        if len(values) != rows * columns:
            raise ValueError(f"{name}: {len(values)} values for {rows} x {columns}")
        return values.reshape((rows, columns), order="F").astype(np.float64)
    raise ValueError(f"no matrix called {name}")
