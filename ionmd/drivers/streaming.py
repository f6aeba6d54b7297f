"""The decoder's counters under the names of the driver interface; shared by every driver that streams ionm1 blocks."""

from __future__ import annotations

from ionmd.decode.ionm1 import Ionm1Decoder
from ionmd.drivers.base import Identity, ReadStats
from ionmd.model import DeviceStatus, StimState


def stats_of(decoder: Ionm1Decoder) -> ReadStats:
    c = decoder.counters()
    named = ("seq_holes", "unknown", "unknown_marks", "marks_lost", "dropped_blocks", "cancelled",
             "ring_lost_transfers")  # fmt: skip
    return ReadStats(
        blocks=c["blocks"], samples=c["samples"], lost_samples=c["lost_samples"], gaps=c["gaps"],
        duplicates=c["duplicates"], bad_frames=c["bad_frames"], stale_frames=c["stale"],
        ring_high_permille=c["ring_high_permille"], fifo_high_permille=c["fifo_high"],
        errors={name: c[name] for name in named if c[name]},
    )  # fmt: skip


def status_of(driver: str, identity: Identity, decoder: Ionm1Decoder, session: int, state: str,
              detail: str = "") -> DeviceStatus:
    s = stats_of(decoder)
    return DeviceStatus(
        state, driver, identity.serial, identity.firmware, len(identity.inputs), identity.rate_hz, identity.boot_id,
        session, s.lost_samples, s.gaps, s.duplicates, s.bad_frames, decoder.fifo_permille, s.fifo_high_permille,
        StimState(decoder.stim_state).name, detail,
    )
