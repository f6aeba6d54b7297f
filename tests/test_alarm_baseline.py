"""A baseline: two averages that replicate, or the reason why there is none."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from ionmd.alarm.baseline import AverageData, build, stimulus_changed, stimulus_differs
from ionmd.errors import Refused
from ionmd.model import Marker, Measure, Reading, StimulusSummary

STIMULUS = StimulusSummary(True, 25.0, 25.1, width_us=200, rate_hz=5.1)
T = np.linspace(0, 40, 400)
WAVE = 3.0 * np.exp(-0.5 * ((T - 20) / 2) ** 2) - 2.0 * np.exp(-0.5 * ((T - 25) / 3) ** 2)


def average(name: str, scale=(1.0, 1.0), status=("present", "present"), noise: float = 0.1, **changes) -> AverageData:
    rng = np.random.default_rng(len(name) + int(100 * scale[0]))
    mean = np.stack([s * WAVE + rng.normal(0, noise, len(T)) for s in scale])
    subs = np.stack([mean + rng.normal(0, 3 * noise, mean.shape) for _ in range(6)])
    readings = [
        Reading("ssep", label, "alert", f"{name}/{label}", 1, 0, st, 300, 0, "simulated", "f1", STIMULUS,
                [Marker("N20", "negative", st, 20.0)], [Measure("N20-P23", st, 5.0 * s)])
        for label, s, st in zip(("a", "b"), scale, status, strict=True)
    ]
    windows = dict.fromkeys(("a", "b"), (100, 350))
    found = AverageData(name, "ssep", 1, ["a", "b"], "f1", STIMULUS, mean,
                        {x: subs[:, d, 100:350] for d, x in enumerate(("a", "b"))}, readings, windows)
    return replace(found, **changes)


def made(*averages: AverageData, kind: str = "pre-position"):
    return build("B1", list(averages), kind, "Kim", "stable", 7, True)


def test_two_averages_that_agree_make_a_baseline_that_knows_its_own_spread():
    base = made(average("x"), average("xy"))
    assert base.info.kind == "pre-position" and base.info.averages == ["x", "xy"] and base.info.first_accepted
    assert all(r.monitorable for r in base.references.values())
    assert all(0.0 < r.sub_ratio_sd < 0.3 for r in base.references.values())
    assert min(base.info.replication.values()) > 0.9


def test_a_derivation_that_does_not_replicate_is_kept_and_marked():
    base = made(average("x", (1.0, 1.0)), average("xy", (1.0, 0.4)))
    assert base.references["a"].monitorable and not base.references["b"].monitorable


def test_a_response_absent_at_baseline_is_not_monitorable_which_is_not_lost():
    base = made(average("x", status=("present", "absent")), average("xy", status=("present", "absent")))
    assert not base.references["b"].monitorable


def test_nothing_that_replicates_is_refused_unless_the_person_says_so():
    nothing = average("x", status=("absent", "absent")), average("xy", status=("absent", "absent"))
    with pytest.raises(Refused, match="no derivation of ssep"):
        made(*nothing)
    assert made(*nothing, kind="other").info.kind == "other"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"filter_id": "f2"}, "filtered differently"),
        ({"derivations": ["a", "c"]}, "different derivations"),
        ({"stimulus": msgspec.structs.replace(STIMULUS, width_us=300)}, "200 and 300 us"),
        ({"stimulus": msgspec.structs.replace(STIMULUS, polarity="biphasic")}, "polarity differs"),
        ({"stimulus": msgspec.structs.replace(STIMULUS, set_ma=30.0)}, "25 -> 30|30 -> 25"),
    ],
)
def test_averages_that_cannot_be_put_together_are_refused_with_the_reason(second, words):
    with pytest.raises(Refused, match=words):
        made(average("x"), average("xy", **second))


def test_one_average_is_not_enough_and_the_message_says_what_to_do():
    with pytest.raises(Refused, match="wait for the next one"):
        made(average("x"))


def test_another_width_cannot_be_compared_and_another_intensity_is_flagged():
    assert "200 and 300" in stimulus_differs(STIMULUS, msgspec.structs.replace(STIMULUS, width_us=300))
    assert stimulus_differs(STIMULUS, msgspec.structs.replace(STIMULUS, set_ma=35.0)) == ""
    now = msgspec.structs.replace(STIMULUS, set_ma=35.0)
    assert stimulus_changed(now, STIMULUS) == "stimulus changed 25 -> 35 mA: a loss may be understated"
    assert "weaker" in stimulus_changed(STIMULUS, now)
    assert "rate changed" in stimulus_changed(msgspec.structs.replace(STIMULUS, rate_hz=2.5), STIMULUS)
    volts = msgspec.structs.replace(STIMULUS, set_ma=None, set_v=400.0)
    assert "voltage" in stimulus_differs(STIMULUS, volts)
