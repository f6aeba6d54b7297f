"""The story of a case: one line a finding, the best derivation, alarms that stand out, nothing that was not said."""

import numpy as np

from ionmd.cli.story import Story, short, threshold_line
from ionmd.model import encode_curve

RATE = 1000.0


def average(test: str, kind: str, derivations: list[str], n: int = 60) -> dict:
    values = np.zeros((len(derivations), n), np.float32)
    values[:, n // 2] = 2.0
    curve = encode_curve(values, -10.0, 1.0)
    return {"id": f"{test}-1", "test": test, "kind": kind, "derivations": derivations, "sweeps": 300, "rejected": 2,
            "stimulus": {"delivered_v": 299.0} if test == "mep_tes" else {"delivered_ma": 25.0},
            "curve": {k: getattr(curve, k) for k in curve.__struct_fields__}}  # fmt: skip


def reading(test: str, derivation: str, snr_db: float, uv: float, **more: object) -> dict:
    return {"test": test, "derivation": derivation, "role": "alert", "status": "present", "kind": "average",
            "average_id": f"{test}-1", "snr_db": snr_db, "measures": [{"label": "p-p", "amplitude_uv": uv}],
            "markers": [{"label": "N20", "latency_ms": 19.5}], **more}  # fmt: skip


def told(story: Story, *events: tuple[str, dict]) -> list[str]:
    return [line for i, (topic, data) in enumerate(events) for line in story.tell(topic, data, 1000 * (i + 1))]


def test_an_average_is_one_line_with_its_best_alert_derivation():
    said = told(
        Story(RATE), ("average", average("ssep_median_left", "average", ["CP4-Fpz", "CP4-CP3", "EPL-EPR"])),
        ("reading", reading("ssep_median_left", "CP4-Fpz", 8.0, 2.0)),
        ("reading", reading("ssep_median_left", "CP4-CP3", 12.0, 2.5, vs={"amplitude_ratio": 0.5})),
        ("reading", reading("ssep_median_left", "EPL-EPR", 20.0, 4.0, role="peripheral control")),
    )  # fmt: skip
    assert len(said) == 1
    assert "CP4-CP3" in said[0] and "2.50 uV, N20 19.5 ms, 50 % of baseline" in said[0]


def test_running_averages_move_the_live_line_only():
    story = Story(RATE)
    recent = {**reading("ssep_median_left", "CP4-CP3", 9.0, 2.0), "kind": "recent", "average_id": "r1",
              "vs": {"amplitude_ratio": 0.9}}  # fmt: skip
    assert told(story, ("average", {**average("ssep_median_left", "recent", ["CP4-CP3"]), "id": "r1"}),
                ("reading", recent)) == []  # fmt: skip
    assert "median L 90 %" in story.live()


def test_a_train_shows_every_muscle_and_a_lost_one_stands_out():
    absent = reading("mep_tes", "APB-R", 0.0, 11.0, status="absent", kind="sweep")
    said = told(Story(RATE), ("average", average("mep_tes", "sweep", ["APB-L", "APB-R"])),
                ("reading", reading("mep_tes", "APB-L", 20.0, 640.0, kind="sweep")), ("reading", absent))  # fmt: skip
    assert len(said) == 1 and "mep_tes 299 V" in said[0]
    assert "APB-L 640" in said[0] and "APB-R absent" in said[0] and "11" not in said[0].replace("mep", "")


def test_an_active_alarm_is_framed_with_its_evidence_once_and_an_ended_one_says_how():
    alarm = {"id": "A1", "kind": "physiological", "priority": "high", "state": "active", "sentence": "It falls.",
             "evidence": ["stimulus delivered"]}  # fmt: skip
    first, again, over = (Story(RATE) for _ in range(3))
    said = first.tell("alarm", alarm, 1000)
    assert said[0] == "" and said[-1] == "" and "A1 CHANGE, high, active" in said[1]
    assert "It falls." in said[2] and "stimulus delivered" in said[3]
    again.tell("alarm", alarm, 1000)
    assert len(again.tell("alarm", alarm, 2000)) == 2
    ended = over.tell("alarm", {**alarm, "state": "cleared", "cleared_by": "recovered"}, 3000)
    assert len(ended) == 1 and "cleared: recovered" in ended[0]


def test_a_threshold_is_told_with_everything_it_depends_on():
    base = {"test": "temg_probe", "width_us": 200, "polarity": "cathodal", "return_electrode": "needle", "steps": 8}
    found = threshold_line({**base, "threshold_ma": 7.0, "muscles": ["DELT-R"], "train_of_four_ratio": 0.98})
    assert found == ("temg_probe: 7 mA in DELT-R (200 us, cathodal, return needle, 8 deliveries, train of four 0.98)")
    assert "no contact: not a threshold" in threshold_line({**base, "threshold_ma": None, "no_contact": True})
    assert "no threshold: stim off" in threshold_line({**base, "threshold_ma": None, "ended": "stim off"})
    assert "not reached" in threshold_line({**base, "threshold_ma": None, "not_reached": True})


def test_text_from_elsewhere_cannot_move_the_cursor():
    said = told(Story(RATE), ("case", {"event": {"kind": "comment", "text": "a\x1b[2Jb"}}),
                ("message", {"person": "Kim\x1b", "text": "x"}))  # fmt: skip
    assert all("\x1b[2J" not in line and "\\x1b" in line for line in said)


def test_tests_have_short_names_on_the_live_line():
    assert [short(t) for t in ("ssep_tibial_right", "mep_tes", "emg_free")] == ["tibial R", "mep", "emg free"]


def test_impedances_come_one_by_one_and_are_told_in_one_line_with_the_bad_ones_named() -> None:
    story = Story(1000.0)
    for name, kohm in (("Fpz", 0.61), ("CP3", 7.2), ("CP4", None), ("Cz", 3.0)):
        assert story.tell("quality", {"electrode": name, "input": 1, "impedance_kohm": kohm}, 1000) == []
    lines = story.tell("case", {"event": {"kind": "step", "text": "positioning"}}, 2000)
    assert len(lines) == 2 and "step: positioning" in lines[1]
    assert "impedances of 4 electrodes: 0.6 to 7.2 kohm" in lines[0]
    assert "CP4 open, CP3 7.2 kohm" in lines[0]
    assert len(story.tell("case", {"event": {"kind": "step", "text": "x"}}, 3000)) == 1
