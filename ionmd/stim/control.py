"""The control thread: every request to the device, in order; `off` alone overtakes.

In: jobs from the pipeline thread (never blocks it).  Out: callbacks on the control thread.
Always: a job carries the generation it was made in; `off` starts a new generation, so nothing that was queued
before it can reach the device after it.  A fire uses the token that the arm job of its slot obtained, so the pipeline
never waits for the device and its decisions depend on samples alone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ionmd.drivers.base import ArmToken, Sequence, Stimulator
from ionmd.errors import INTERLOCK, NO_DEVICE, DeviceGone, DeviceRefused, IonmdError, Refused

_OVERTAKEN = "stimulation was switched off before this request reached the device"
ArmDone = Callable[[ArmToken | None, IonmdError | None], None]


@dataclass(frozen=True)
class Trouble:
    """A request that failed: `what` arm | fire | heartbeat | impedance | abort, and the slot and nonce it was about."""

    what: str
    slot: int
    nonce: int
    text: str
    reason: str = ""


class Control:
    """Owns the stimulator while a device is attached."""

    def __init__(self, on_trouble: Callable[[Trouble], None]) -> None:
        self._on_trouble = on_trouble
        self._jobs: queue.SimpleQueue[tuple[int, Callable[[Stimulator], None], Callable[[IonmdError], None]] | None]
        self._jobs = queue.SimpleQueue()
        self._stimulator: Stimulator | None = None
        self._generation = 0
        self._tokens: dict[int, ArmToken] = {}
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self.done = 0  # jobs executed; the watchdog compares it with `asked`
        self.asked = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.off()
        self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def attach(self, stimulator: Stimulator | None) -> None:
        """A (re)connected device; always disarmed."""
        self._generation += 1
        self._tokens = {}
        self._stimulator = stimulator

    @property
    def attached(self) -> bool:
        return self._stimulator is not None

    @property
    def backlog(self) -> int:
        return self.asked - self.done

    def off(self) -> None:
        """Outputs off now, from any thread.  Queued jobs of the old generation die unexecuted."""
        self._generation += 1
        self._tokens = {}
        if (stimulator := self._stimulator) is not None:
            stimulator.off()

    def load_and_arm(self, slot: int, sequence: Sequence, ttl_ms: int, done: ArmDone | None = None) -> None:
        generation = self._generation

        def job(stimulator: Stimulator) -> None:
            stimulator.load(slot, sequence)
            token = stimulator.arm(slot, ttl_ms)
            if generation != self._generation:  # `off` came while the device was being armed, perhaps before it was
                stimulator.off()
                raise Refused(_OVERTAKEN, INTERLOCK)
            self._tokens[slot] = token
            if done is not None:
                done(token, None)

        def failed(error: IonmdError) -> None:
            self._tokens.pop(slot, None)
            if done is not None:
                done(None, error)
            self._on_trouble(Trouble("arm", slot, 0, str(error), getattr(error, "reason", "")))

        self._put(job, failed)

    def fire(self, slot: int, nonce: int, at_sample: int) -> None:
        """`at_sample` in device samples."""

        def job(stimulator: Stimulator) -> None:
            token = self._tokens.get(slot)
            if token is None:
                raise DeviceRefused(f"slot {slot} is not armed", "TOKEN")
            stimulator.fire(token, nonce, at_sample)

        def failed(error: IonmdError) -> None:
            self._on_trouble(Trouble("fire", slot, nonce, str(error), getattr(error, "reason", "")))

        self._put(job, failed)

    def heartbeat(self, counter: int, processed_sample: int, progress: int) -> None:
        def job(stimulator: Stimulator) -> None:
            stimulator.heartbeat(counter, processed_sample, progress)

        def failed(error: IonmdError) -> None:
            self._on_trouble(Trouble("heartbeat", 0, counter, str(error)))

        self._put(job, failed, any_generation=True)

    def abort(self, output: int) -> None:
        self._put(lambda s: s.abort(output), lambda e: self._on_trouble(Trouble("abort", output, 0, str(e))))

    def reset(self, reason: int, done: Callable[[IonmdError | None], None]) -> None:
        def job(stimulator: Stimulator) -> None:
            stimulator.reset(reason)
            done(None)

        self._put(job, done)

    def impedance(self, inputs: tuple[int, ...], done: Callable[[IonmdError | None], None]) -> None:
        def job(stimulator: Stimulator) -> None:
            stimulator.impedance(inputs)
            done(None)

        self._put(job, done)

    def _put(
        self, job: Callable[[Stimulator], None], failed: Callable[[IonmdError], None], any_generation: bool = False
    ) -> None:
        self.asked += 1
        self._jobs.put((-1 if any_generation else self._generation, job, failed))

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            generation, job, failed = item
            stimulator = self._stimulator
            try:
                if generation not in (-1, self._generation):
                    failed(Refused(_OVERTAKEN, INTERLOCK))
                elif stimulator is None:
                    failed(Refused("no stimulator is connected", NO_DEVICE))
                else:
                    job(stimulator)
            except (DeviceGone, DeviceRefused) as error:
                failed(error)
            except IonmdError as error:
                failed(error)
            except Exception as error:  # a driver bug must not leave the outputs on
                if stimulator is not None:
                    stimulator.off()
                failed(IonmdError(f"unexpected failure in the driver: {type(error).__name__}: {error}"))
            self.done += 1
