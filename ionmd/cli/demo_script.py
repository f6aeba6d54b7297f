"""What the technologist of `ionmd demo` does, as requests at samples.

Times are those of firmware_sim/scenarios/demo.toml: loss on the right at 380 s, recovery from 500 s, the lead of
the left median stimulator off at 590 s, end at 660 s.  The technologist knows none of it: trains are given when a
careful one would, before the decompression, when an SSEP falls, as a repeat, and after the release.
"""

from __future__ import annotations

from typing import Any

from ionmd.daemon import Step

CASE = "demo"
TESTS = ["ssep_median_left", "ssep_tibial_left", "ssep_median_right", "ssep_tibial_right"]
BASELINE_S, END_S = 260.0, 655.0


TRAIN: dict[str, Any] = {
    "output": "tes", "site": "C3/C4", "amplitude_v": 300.0, "width_us": 75, "polarity": "biphasic", "count": 5,
    "interval_ms": 2.0,
}  # fmt: skip
FOUR: dict[str, Any] = {
    "output": "tibial_right", "site": "right ankle", "amplitude_ma": 40.0, "width_us": 200, "count": 4,
    "interval_ms": 500.0,
}  # fmt: skip


def steps(rate_hz: float, case_id: str = CASE) -> list[Step]:
    """The agenda; lease "script" is whatever lease the script holds by then."""

    def at(seconds: float, method: str, **params: object) -> Step:
        return Step(round(seconds * rate_hz), method, params)

    def fired(seconds: float, delivery: dict[str, Any]) -> list[Step]:
        armed = at(seconds - 1.0, "stim.arm", lease="script", **delivery)
        return [armed, at(seconds, "stim.fire", token="script")]  # noqa: S106 - whatever the script has armed by then

    return [
        at(0.2, "person.sign_in", name="Kim", credential="CNIM"),
        at(0.4, "case.open", case_id=case_id, template="cervical"),
        at(1.0, "impedance.measure"),
        at(6.0, "stim.acquire"),
        at(7.0, "event.add", kind="step", text="positioning"),
        at(8.0, "test.start", tests=[*TESTS, "mep_tes", "tof"], lease="script"),
        at(180.0, "event.add", kind="step", text="exposure"),
        *(at(BASELINE_S, "baseline.set", test=t, kind="post-opening", reason="two averages agree") for t in TESTS),
        *fired(264.0, TRAIN), *fired(268.0, TRAIN),
        at(270.0, "baseline.set", test="mep_tes", kind="post-opening", reason="every muscle answers twice"),
        *fired(280.0, FOUR),
        at(300.0, "event.add", kind="step", text="decompression"),
        *fired(395.0, TRAIN), *fired(399.0, TRAIN),
        *fired(410.0, FOUR),
        at(450.0, "episode.add", informed=["surgeon", "anaesthesia"], words="right SSEP fall, right MEP are lost",
           reply="retractor is loosened", action="pressure raised, retractor released"),
        *(step for seconds in (540.0, 544.0, 548.0) for step in fired(seconds, TRAIN)),
        at(560.0, "episode.add", informed=["surgeon"], words="right responses come back", outcome="improved"),
        at(570.0, "event.add", kind="step", text="closure"),
        at(END_S, "case.close", reason="end of the operation"),
    ]  # fmt: skip
