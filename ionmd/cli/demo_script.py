"""What the technologist of `ionmd demo` does, as requests at samples.

Times are those of firmware_sim/scenarios/demo.toml: loss on the right at 380 s, recovery from 500 s, the lead of the
left median stimulator off at 590 s, end at 660 s.
"""

from __future__ import annotations

from ionmd.daemon import Step

CASE = "demo"
TESTS = ["ssep_median_left", "ssep_tibial_left", "ssep_median_right", "ssep_tibial_right"]
BASELINE_S, END_S = 260.0, 655.0


def steps(rate_hz: float, case_id: str = CASE) -> list[Step]:
    """The agenda; lease "script" is whatever lease the script holds by then."""

    def at(seconds: float, method: str, **params: object) -> Step:
        return Step(round(seconds * rate_hz), method, params)

    return [
        at(0.2, "person.sign_in", name="Kim", credential="CNIM"),
        at(0.4, "case.open", case_id=case_id, template="cervical"),
        at(1.0, "impedance.measure"),
        at(6.0, "stim.acquire"),
        at(7.0, "event.add", kind="step", text="positioning"),
        at(8.0, "test.start", tests=TESTS, lease="script"),
        at(180.0, "event.add", kind="step", text="exposure"),
        *(at(BASELINE_S, "baseline.set", test=t, kind="post-opening", reason="two averages agree") for t in TESTS),
        at(300.0, "event.add", kind="step", text="decompression"),
        at(450.0, "episode.add", informed=["surgeon", "anaesthesia"], words="right median and tibial responses fall",
           reply="retractor is loosened", action="pressure raised, retractor released"),
        at(560.0, "episode.add", informed=["surgeon"], words="right responses come back", outcome="improved"),
        at(570.0, "event.add", kind="step", text="closure"),
        at(END_S, "case.close", reason="end of the operation"),
    ]  # fmt: skip
