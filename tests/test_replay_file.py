"""A real recording through the daemon's own averaging equals the plain average of its epochs."""

import numpy as np
import pytest

from ionmd.catalog import load_test
from ionmd.errors import ConfigError
from ionmd.model import decode_curve
from ionmd.replay.file import replay_file
from tests.visual_erp import TEST_FILE, convert, plain_average, test_file


def test_the_average_of_80_visual_stimuli_equals_the_plain_average(tmp_path):
    pytest.importorskip("edfio")
    recording, test = convert(tmp_path / "visual.bdf"), test_file(tmp_path / "visual.toml")
    results = replay_file(recording, load_test(test))
    averages = [a for topic, a, _ in results if topic == "average" and a.kind == "average"]
    assert sum(a.sweeps for a in averages) == 80
    expected = plain_average()
    assert np.abs(decode_curve(averages[0].curve)[:, : expected.shape[1]] - expected).max() <= 0.005


def test_a_trigger_that_is_not_in_the_file_is_named(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("time_s,Cz,trig\n" + "".join(f"{i / 1000},{i % 7},0\n" for i in range(2000)))
    test = tmp_path / "t.toml"
    test.write_text(TEST_FILE.replace('POz = "POz"\n"left minus right" = "C3 - C4"\n', ""))
    with pytest.raises(ConfigError, match="square"):
        list(replay_file(path, load_test(test)))


def test_a_column_that_is_not_in_the_file_is_named(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("time_s,Cz\n" + "".join(f"{i / 1000},{i % 7}\n" for i in range(2000)))
    test = tmp_path / "t.toml"
    test.write_text(TEST_FILE)
    with pytest.raises(ConfigError, match="POz"):
        list(replay_file(path, load_test(test)))


def test_a_pulse_train_in_a_csv_averages_to_the_pulse(tmp_path):
    rng = np.random.default_rng(5)
    n, period = 60_000, 500
    t = np.arange(n)
    onset = (t % period == 100) & (t > period) & (t < n - period)
    shape = np.exp(-0.5 * ((np.arange(300) - 150) / 20.0) ** 2) * 10.0
    x = rng.normal(0.0, 1.0, n)
    for i in np.flatnonzero(onset):
        x[i : i + 300] += shape
    path = tmp_path / "train.csv"
    trig = np.repeat(onset, 1).astype(int)
    path.write_text("time_s,Cz,trig\n" + "".join(f"{i / 1000:.3f},{x[i]:.6f},{trig[i]}\n" for i in range(n)))
    test = tmp_path / "t.toml"
    column = 'source = "column"\nonset_column = "trig"\nonset_rule = "threshold 0.5"'
    body = TEST_FILE.replace('source = "annotation"\ncode = "square"', column)
    body = body.replace('POz = "POz"\n"left minus right" = "C3 - C4"\n', "").replace("-203.125", "-100.0")
    body = body.replace("601.5625", "350.0").replace("sweeps = 80", "sweeps = 100")
    test.write_text(body)
    found = [a for topic, a, _ in replay_file(path, load_test(test)) if topic == "average" and a.kind == "average"]
    mean = decode_curve(found[0].curve)[0]
    at = np.flatnonzero(onset)[:found[0].sweeps]
    epochs = np.stack([x[i - 100 : i + 350] for i in at])
    expected = epochs.mean(axis=0)
    expected -= expected[:100].mean()
    assert found[0].sweeps == 100
    assert np.abs(mean - expected).max() < 1e-4
