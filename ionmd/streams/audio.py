"""`emg_audio`: muscles to listen to, whether or not a test of them runs.

Derivations of the case's muscle tests, stimulus windows held before the filter, band-pass 20-2000 Hz, then every
`step`-th sample: `step` is the largest whole number that leaves at least 8 kHz, so the rate is 8 to 16 kHz (or that of
the device when it is lower), and what the band-pass leaves above half of it is under -24 dB.
Muted, that is exactly 0.0 and flagged: stimulus windows, and cautery with the quiet time after it.
"""

from __future__ import annotations

from ionmd.errors import NO_CASE, NOT_MONITORED, Refused
from ionmd.model import Block, Derivation
from ionmd.room.room import Room
from ionmd.runner.plan import Channel, resolve
from ionmd.runner.stream import CausalStream
from ionmd.service.backend import Sink, StreamSpec
from ionmd.service.frames import Cause, FrameFlag
from ionmd.service.schema import StreamLayout
from ionmd.streams.source import Listed, Source, as_bytes
from ionmd.testdef import Filter

LEAST_HZ = 8000.0
BAND = Filter(kind="butterworth", order=4, band_hz=(20.0, 2000.0), zero_phase=False)
MUSCLE = ("emg", "temg", "motor", "tof")  # modalities


def step_of(rate_hz: float) -> int:
    return max(1, int(rate_hz // LEAST_HZ))


class Audio(Source):
    def __init__(self, room: Room, layout: StreamLayout, channels: list[Channel], add: Listed, remove: Listed) -> None:
        super().__init__(room, layout, add, remove)
        self._case = room.case
        self._stream = CausalStream(channels, room.stride, BAND, room.rate_hz, 0.01)

    def _give(self, sink: Sink, block: Block, flags: FrameFlag) -> None:
        if self._room.case is not self._case:
            self.end(Cause.STOPPED)
            return
        stimulus, cautery = self.stimulus_spans(block), self.cautery_spans(block)
        rows = self._stream.feed(block, stimulus)
        if self._stream.restarted:
            flags |= FrameFlag.RESTARTED
        if stimulus or cautery:
            flags |= FrameFlag.MUTED
            for start, stop in (*stimulus, *cautery):
                rows[start:stop] = 0.0
        skip = -block.first % self.layout.step  # kept samples have an index that `step` divides, whatever the blocks
        out = rows[skip : block.n : self.layout.step, : len(self.layout.names)].astype("<f4", order="C")
        if len(out):
            sink.push(block.first + skip, as_bytes(out), len(out), flags)


def open_audio(room: Room, spec: StreamSpec, add: Listed, remove: Listed) -> Source:
    """Channels by derivation.  Refused: no case, an unknown derivation, or one whose electrode is not recorded."""
    if room.case is None:
        raise Refused("emg_audio: no case is open; its montage names the muscles", NO_CASE)
    known: dict[str, Derivation] = {}
    for state in list(room.tests.values()):
        if state.definition.test.modality in MUSCLE:
            for derivation in state.definition.derivations:
                known.setdefault(derivation.label, derivation)
    if unknown := [name for name in spec.channels if name not in known]:
        raise Refused(
            f"derivation {', '.join(unknown)} is no muscle of this case; there are {', '.join(known)}", NOT_MONITORED
        )
    channels, missing = resolve([known[x] for x in spec.channels or known], dict(room.electrodes), room.inputs)
    wanted = [missing[name] for name in spec.channels if name in missing]
    if wanted or not channels:
        why = "; ".join(wanted or missing.values()) or "the case has no muscle test"
        raise Refused(f"emg_audio: {why}", NOT_MONITORED)
    step = step_of(room.rate_hz)
    layout = StreamLayout(
        "emg_audio", room.rate_hz / step, [c.derivation.label for c in channels], "uV", "<f4", [], step=step,
        filter="Butterworth band-pass 20-2000 Hz of order 4, causal",
    )
    return Audio(room, layout, channels, add, remove)
