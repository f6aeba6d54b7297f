"""Plays a recording (EDF, EDF+, BDF, BDF+, CSV) as if it were an amplifier.

In: a file.  Out: Blocks with the file's digital values and uV, Gap.LOST where it was not recorded, and for each trigger
an AUX mark on line EXTERNAL_TRIGGER whose `nonce` is 1 + its index in `triggers` (text and code are there).
Always: sample 0 is the file's first row.  Without `speed` it is as fast as it is asked and never looks at a clock.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from pathlib import Path

from ionmd.drivers.base import Amplifier, Identity, InputInfo, ReadStats
from ionmd.drivers.recording import CHUNK_ROWS, Recording, Trigger, open_recording
from ionmd.errors import ConfigError, DeviceGone
from ionmd.model import AuxLine, Block, DeviceStatus, Gap, Mark, MarkKind

MAX_INPUTS = 64


class Replay(Amplifier):
    name = "replay"
    live = False

    def __init__(self, path: str | Path = "", *, rate_hz: float | None = None, trigger_column: str = "",
                 trigger_rule: str = "rising", speed: float | None = None,
                 now_s: Callable[[], float] = time.monotonic) -> None:
        """speed  recorded seconds per second of `now_s`; None: no pacing."""
        if speed is not None and not (0 < speed <= 1e6):
            raise ConfigError(f"speed: {speed!r} came, a number above 0 was expected")
        self._path = Path(path)
        self._options = (rate_hz, trigger_column, trigger_rule)
        self._speed, self._now_s = speed, now_s
        self._recording: Recording | None = None
        self._streaming = False
        self._at = 0  # next sample of the time line
        self._segment = 0
        self._started_s = 0.0
        self._session = 0
        self._stats = ReadStats()

    def open(self, serial: str | None = None) -> Identity:
        """`serial` is not used: a file has none.  Raises ConfigError when the file does not fit."""
        if not self._path.name:
            raise ConfigError("replay: no file was named")
        rec = open_recording(self._path, *self._options)
        if len(rec.labels) > MAX_INPUTS:
            for label in rec.labels[MAX_INPUTS:]:
                rec.header.skipped[label] = f"only the first {MAX_INPUTS} inputs are played"
        self._recording = rec
        self._inputs = min(MAX_INPUTS, len(rec.labels))
        self._trigger_samples = [t.sample for t in rec.triggers]
        inputs = tuple(
            InputInfo(label, abs(float(lsb)))
            for label, lsb in zip(rec.labels[:MAX_INPUTS], rec.header.lsb_uv[:MAX_INPUTS], strict=True)
        )
        return Identity(
            serial=self._path.name, boot_id=0, firmware="", inputs=inputs, rate_hz=rec.rate_hz, source="replay",
            stimulator=False,
        )

    @property
    def recording(self) -> Recording:
        if self._recording is None:
            raise DeviceGone("replay: the file is not open")
        return self._recording

    @property
    def triggers(self) -> list[Trigger]:
        """All triggers of the file, in order; `select_triggers` picks those of a test."""
        return self.recording.triggers

    @property
    def at_end(self) -> bool:
        """Every sample has been given."""
        return self._recording is not None and self._segment >= len(self._recording.header.segments)

    def start(self) -> None:
        _ = self.recording
        self._at, self._segment, self._started_s = 0, 0, self._now_s()
        self._session += 1
        self._streaming = True

    def read_into(self, block: Block, limit_sample: int | None = None) -> bool:
        rec = self.recording
        if not self._streaming:
            return False
        if block.inputs != self._inputs:
            raise ValueError(f"a block of {block.inputs} inputs came, {self._inputs} were expected")
        limit = rec.n_samples if limit_sample is None else limit_sample
        end = rec.n_samples
        if self._speed is not None:
            end = int((self._now_s() - self._started_s) * self._speed * rec.rate_hz)
        segments = rec.header.segments
        while True:
            if self._segment >= len(segments):
                return block.n > 0
            s = segments[self._segment]
            if self._at < s.first:
                if block.n:
                    return True
                if end < s.first:  # paced: the hole has not passed yet
                    return False
                block.gap |= Gap.LOST
                block.lost += s.first - self._at
                self._stats.gaps += 1
                self._stats.lost_samples += s.first - self._at
                self._at = s.first
            if block.n == 0:
                block.first = block.device_first = self._at
                block.session = self._session
                if self._at == 0:
                    block.gap |= Gap.SESSION
            n = min(block.capacity - block.n, limit - self._at, s.first + s.n - self._at, end - self._at, CHUNK_ROWS)
            if n > 0:
                self._copy(block, s.row + self._at - s.first, n)
                self._at += n
            if self._at == s.first + s.n:
                self._segment += 1
            if block.n >= block.capacity or self._at >= limit:
                return True
            if n <= 0:
                return False

    def _copy(self, block: Block, row: int, n: int) -> None:
        counts, uv = self.recording.rows(row, n)
        k, at = self._inputs, block.n
        block.counts[at : at + n, :k] = counts[:, :k]
        block.uv[at : at + n, :k] = uv[:, :k]
        low, high = uv[:, :k].min(axis=0), uv[:, :k].max(axis=0)
        if at:
            low, high = low.clip(max=block.lo[:k]), high.clip(min=block.hi[:k])
        block.lo[:k], block.hi[:k] = low, high
        block.n += n
        first = bisect.bisect_left(self._trigger_samples, self._at)
        for i in range(first, bisect.bisect_left(self._trigger_samples, self._at + n)):
            block.marks.append(Mark(
                MarkKind.AUX, self._trigger_samples[i], output=AuxLine.EXTERNAL_TRIGGER, nonce=i + 1, value=1,
            ))  # fmt: skip
        self._stats.blocks += 1
        self._stats.samples += n

    def stop(self) -> None:
        self._streaming = False

    def close(self) -> None:
        self._streaming = False
        if self._recording is not None:
            self._recording.close()
        self._recording = None

    def fileno(self) -> int:
        return -1

    def stats(self) -> ReadStats:
        return ReadStats(blocks=self._stats.blocks, samples=self._stats.samples, gaps=self._stats.gaps,
                         lost_samples=self._stats.lost_samples)

    def status(self) -> DeviceStatus:
        rec = self._recording
        if rec is None:
            return DeviceStatus(state="absent", driver=self.name, serial=self._path.name)
        return DeviceStatus(
            state="streaming" if self._streaming else "connecting", driver=self.name, serial=self._path.name,
            inputs=self._inputs, rate_hz=rec.rate_hz, session=self._session, lost_samples=self._stats.lost_samples,
            gaps=self._stats.gaps,
        )
