"""Writes EDF/BDF byte by byte, right or wrong, for the reader's tests (edfio refuses to write wrong ones)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Sig:
    label: str
    data: np.ndarray  # int [records, n]
    unit: str = "uV"
    pmin: str = "-100"
    pmax: str = "100"
    dmin: str = "-32768"
    dmax: str = "32767"
    n: str = ""
    raw: list[bytes] = field(default_factory=list)  # annotation bytes a record, instead of data


def tal(onset: str, *texts: str, duration: str = "") -> bytes:
    head = onset + (f"\x15{duration}" if duration else "")
    return head.encode() + b"\x14" + b"".join(t.encode() + b"\x14" for t in texts or ("",)) + b"\0"


def write(path, signals: list[Sig], *, bdf=False, duration="1", reserved="", **wrong: str) -> None:
    """`wrong` overwrites main header fields: version, header_bytes, n_records, n_signals."""
    records = len(signals[0].data)
    width = 3 if bdf else 2

    def pad(text: str, n: int) -> bytes:
        return text.encode("latin-1").ljust(n)[:n]

    head = (b"\xffBIOSEMI" if bdf else pad("0", 8)) if "version" not in wrong else pad(wrong["version"], 8)
    head += pad("X X X X", 80) + pad("Startdate X X X X", 80) + b"01.01.2501.02.03"
    head += pad(wrong.get("header_bytes", str(256 * (len(signals) + 1))), 8) + pad(reserved, 44)
    head += pad(wrong.get("n_records", str(records)), 8) + pad(duration, 8)
    head += pad(wrong.get("n_signals", str(len(signals))), 4)
    counts = [s.data.shape[1] for s in signals]
    for values, n in (
        ([s.label for s in signals], 16), ([""] * len(signals), 80), ([s.unit for s in signals], 8),
        ([s.pmin for s in signals], 8), ([s.pmax for s in signals], 8), ([s.dmin for s in signals], 8),
        ([s.dmax for s in signals], 8), ([""] * len(signals), 80),
        ([s.n or str(c) for s, c in zip(signals, counts, strict=True)], 8), ([""] * len(signals), 32),
    ):  # fmt: skip
        head += b"".join(pad(v, n) for v in values)
    body = b""
    for r in range(records):
        for s in signals:
            if s.raw:
                body += s.raw[r].ljust(width * s.data.shape[1], b"\0")
            else:
                body += s.data[r].astype("<i4").reshape(-1, 1).view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
    path.write_bytes(head + body)
