"""`ionmd analyze`: files in, the result of design 6 out; every wrong file is refused with its place."""

import json

import numpy as np
import pytest

from ionmd.analyze import analyze
from ionmd.analyze.start import stimulus_onset_ms
from ionmd.catalog import load_test, resolve_test
from ionmd.errors import ConfigError

ABR = """
[test]
id = "abr"
modality = "evoked"
[epoch]
start_ms = 0.0
stop_ms = 12.0
[filter]
band_hz = [100.0, 3000.0]
[[marker]]
label = "V"
polarity = "positive"
window_ms = [4.5, 8.0]
[[marker]]
label = "N"
polarity = "negative"
window_ms = [5.5, 10.0]
[[measure]]
label = "V-N"
from = "V"
to = "N"
[presence]
window_ms = [4.0, 10.0]
"""
T_MS = np.arange(0.0, 40.0, 0.05)


def wave(at_ms=6.0, uv=1.0):
    return uv * (np.exp(-0.5 * ((T_MS - at_ms) / 0.4) ** 2) - 0.6 * np.exp(-0.5 * ((T_MS - at_ms - 1.5) / 0.6) ** 2))


def write(tmp_path, columns, name="waves.csv"):
    rows = [",".join(columns)] + [",".join(f"{v:.9g}" for v in row) for row in zip(*columns.values(), strict=True)]
    file = tmp_path / name
    file.write_text("\n".join(rows) + "\n")
    return file


def test_file(tmp_path, text=ABR):
    file = tmp_path / "test.toml"
    file.write_text(text)
    return load_test(file)


test_file.__test__ = False


def test_halves_make_one_waveform_with_its_noise(tmp_path):
    rng = np.random.default_rng(1)
    columns = {"time_ms": T_MS}
    for name, uv in (("loud", 1.0), ("silent", 0.0)):
        for half in ("a", "b"):
            columns[f"{name}.{half}"] = wave(uv=uv) + rng.normal(0, 0.1, len(T_MS))
    result = analyze(write(tmp_path, columns), test_file(tmp_path))
    assert list(result) == ["file", "test", "waveforms"] and result["test"] == "abr"
    json.dumps(result, allow_nan=False)
    loud, silent = result["waveforms"]
    assert [loud["name"], silent["name"]] == ["loud", "silent"]
    assert loud["status"] == "present" and loud["presence_score"] > silent["presence_score"]
    v = next(m for m in loud["markers"] if m["label"] == "V")
    assert v["latency_ms"] == pytest.approx(6.0, abs=0.1) and v["status"] == "present"
    assert loud["measures"][0]["label"] == "V-N"
    assert 0.01 < loud["residual_noise_uv"] < 0.1
    assert silent["status"] in ("absent", "uncertain")
    assert all(m["status"] == "uncertain" for m in silent["markers"])


def test_channels_are_arithmetic_over_columns_and_their_halves(tmp_path):
    rng = np.random.default_rng(2)
    hum = 5.0 * np.sin(2 * np.pi * T_MS / 20.0)
    columns = {"time_ms": T_MS}
    for half in ("a", "b"):
        columns[f"Cz.{half}"] = wave() + hum + rng.normal(0, 0.05, len(T_MS))
        columns[f"A1.{half}"] = hum + rng.normal(0, 0.05, len(T_MS))
    definition = test_file(tmp_path, ABR + '[channels]\nbaep = "(Cz - A1) * 2"\n')
    (only,) = analyze(write(tmp_path, columns), definition)["waveforms"]
    assert only["name"] == "baep" and only["status"] == "present" and only["residual_noise_uv"] > 0
    with pytest.raises(ConfigError, match=r"channels.baep.*A1"):
        analyze(write(tmp_path, {k: v for k, v in columns.items() if not k.startswith("A1")}), definition)


def test_time_zero_comes_from_the_column_that_shows_the_stimulus(tmp_path):
    text = ABR + '[trigger]\nsource = "column"\nonset_column = "mic"\nonset_rule = "envelope 10 %"\n'
    rng = np.random.default_rng(3)
    for onset in (0.5, 5.25):
        mic = np.where((onset <= T_MS) & (onset + 5 > T_MS), np.sin(2 * np.pi * (T_MS - onset)), 0.0)
        columns = {
            "time_ms": T_MS, "w.a": wave(6.0 + onset) + rng.normal(0, 0.05, len(T_MS)),
            "w.b": wave(6.0 + onset) + rng.normal(0, 0.05, len(T_MS)), "mic": mic + rng.normal(0, 0.01, len(T_MS)),
        }  # fmt: skip
        result = analyze(write(tmp_path, columns), test_file(tmp_path, text))
        assert result["stimulus_onset_ms"] == pytest.approx(onset, abs=0.1)
        (w,) = result["waveforms"]
        assert next(m for m in w["markers"] if m["label"] == "V")["latency_ms"] == pytest.approx(6.0, abs=0.2)
    with pytest.raises(ConfigError, match="mic"):
        analyze(write(tmp_path, {"time_ms": T_MS, "w": wave()}), test_file(tmp_path, text))


def test_an_unclear_onset_is_said_and_not_guessed(tmp_path):
    noise = np.random.default_rng(0).normal(0, 1, 800)
    assert stimulus_onset_ms(noise, "envelope 10 %", 0.0, 0.05) is None
    assert stimulus_onset_ms(noise, "threshold 100", 0.0, 0.05) is None
    text = ABR + '[trigger]\nsource = "column"\nonset_column = "mic"\nonset_rule = "envelope 10 %"\n'
    columns = {"time_ms": T_MS, "w": wave(), "mic": noise}
    assert "no clear onset" in analyze(write(tmp_path, columns), test_file(tmp_path, text))["note"]


def test_a_single_waveform_takes_its_noise_from_where_no_response_is(tmp_path):
    rng = np.random.default_rng(4)
    columns = {"time_ms": T_MS, "w": wave() + rng.normal(0, 0.05, len(T_MS)), "none": rng.normal(0, 0.05, len(T_MS))}
    w, none = analyze(write(tmp_path, columns), test_file(tmp_path))["waveforms"]
    assert w["status"] == "present" and none["status"] != "present"
    assert w["residual_noise_uv"] == pytest.approx(none["residual_noise_uv"], rel=0.5)


def test_electrode_columns_become_the_derivations_of_a_catalogue_test(tmp_path):
    t = np.arange(-20.0, 60.0, 0.2)
    rng = np.random.default_rng(5)
    columns = {"time_ms": t}
    for label in ("CP4", "Fpz", "CP3"):
        gain = 4.0 if label == "CP4" else 0.0
        for half in ("a", "b"):
            peak = -np.exp(-0.5 * ((t - 20) / 1.4) ** 2) + np.exp(-0.5 * ((t - 25) / 2.2) ** 2)
            columns[f"{label}.{half}"] = gain * peak + rng.normal(0, 0.3, len(t))
    result = analyze(write(tmp_path, columns), resolve_test("ssep_median_left"))
    assert [w["name"] for w in result["waveforms"]] == ["CP4-Fpz", "CP4-CP3"]
    assert all(w["status"] == "present" and w["measures"][0]["label"] == "N20-P23" for w in result["waveforms"])


def test_free_running_emg_gives_bursts_and_outliers(tmp_path):
    rng = np.random.default_rng(6)
    t = np.arange(20000) * 0.25
    x = rng.normal(0, 5.0, 20000)
    x[8000:10000] += rng.normal(0, 250.0, 2000)
    x = np.convolve(x, np.hanning(10) / 2, "same")  # EMG at 4 kHz is smooth from sample to sample
    x[100] = 200.0
    (w,) = analyze(write(tmp_path, {"time_ms": t, "emg": x}), resolve_test("emg_free"))["waveforms"]
    assert w["outliers"] == 1 and w["outlier_ms"] == [25.0]
    (burst,) = w["bursts"]
    assert burst["start_ms"] == pytest.approx(2000.0, abs=30) and burst["stop_ms"] == pytest.approx(2500.0, abs=30)


def test_emg_rows_that_a_converter_dropped_leave_the_files_own_times(tmp_path):
    t = np.arange(6000.0)
    x = np.random.default_rng(3).normal(0, 3.0, len(t))
    x[3000:3400] += np.random.default_rng(4).normal(0, 120.0, 400)
    kept = np.ones(len(t), bool)
    kept[100:2900:20] = False  # one row in twenty
    kept[4500:4700] = False  # a hole
    result = analyze(write(tmp_path, {"time_ms": t[kept], "emg": x[kept]}), resolve_test("emg_free"))
    (w,) = result["waveforms"]
    (burst,) = w["bursts"]
    assert burst["start_ms"] == pytest.approx(3000, abs=30) and burst["stop_ms"] == pytest.approx(3400, abs=30)
    assert result["holes_ms"] == [[4499.0, 4700.0]] and "steps of 1 to 201 ms" in result["note"]


def test_time_that_stands_or_goes_back_is_refused_and_uneven_time_is_for_emg_alone(tmp_path):
    t = np.arange(0.0, 40.0, 0.05)
    for place, value in ((400, t[399]), (400, t[390])):
        wrong = t.copy()
        wrong[place] = value
        for test in ("emg_free", "ssep_median_left"):
            with pytest.raises(ConfigError, match=r"line 402: .* a later time was expected"):
                analyze(write(tmp_path, {"time_ms": wrong, "x": t}), resolve_test(test))
    with pytest.raises(ConfigError, match="even steps"):
        analyze(write(tmp_path, {"time_ms": np.delete(t, slice(300, 320)), "x": t[20:]}), test_file(tmp_path))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["empty"]),
        ("t,a\n0,1\n", ["'t'", "time_ms"]),
        ("time_ms\n0\n1\n", ["at least one column"]),
        ("time_ms,a,a\n0,1,1\n", ["'a'", "twice"]),
        ("time_ms,a\n" + "0,1\n" * 3, ["3 samples"]),
        ("time_ms,a\n" + "".join(f"{k},{k}\n" for k in range(9)) + "9,x\n", ["line 11", "column a", "'x'"]),
        ("time_ms,a\n" + "".join(f"{k},{k}\n" for k in range(9)) + "9,nan\n", ["line 11", "'nan'", "finite"]),
        ("time_ms,a\n" + "".join(f"{k},{k}\n" for k in range(9)) + "9\n", ["line 11", "1 cells", "2"]),
        ("time_ms,a\n" + "".join(f"{k * k},{k}\n" for k in range(12)), ["even steps"]),
        ("time_ms,a\n" + "".join(f"{9 - k},{k}\n" for k in range(9)), ["rising"]),
        ("time_ms,a\n" + "".join(f"{k / 1e5:.6f},{k}\n" for k in range(900)), ["seconds"]),
        ("time_ms,a\n" + "".join(f"{k},{k}\n" for k in range(9)) + "9,1e300\n", ["line 11", "1e300", "microvolts"]),
    ],
)
def test_a_wrong_csv_file_is_refused_and_the_message_names(tmp_path, text, names):
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        analyze(file, test_file(tmp_path))
    for name in ["bad.csv", *names]:
        assert name in str(caught.value)


def test_a_file_shorter_than_the_epoch_or_missing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        analyze(tmp_path / "none.csv", test_file(tmp_path))
    late = {"time_ms": T_MS + 100.0, "w": wave()}
    with pytest.raises(ConfigError, match="epoch"):
        analyze(write(tmp_path, late), test_file(tmp_path))


def test_a_file_without_the_time_of_the_response_is_refused(tmp_path):
    early = {"time_ms": np.arange(200) * 0.1 - 18.0, "w": np.sin(np.arange(200) / 7.0)}
    with pytest.raises(ConfigError, match="looks for a response at"):
        analyze(write(tmp_path, early), resolve_test("ssep_median_left"))


def test_a_dead_column_is_uncertain_and_has_no_noise(tmp_path):
    columns = {"time_ms": np.arange(800) * 0.1 - 20.0, "zero": np.zeros(800), "five": np.full(800, 5.0)}
    for w in analyze(write(tmp_path, columns), resolve_test("ssep_median_left"))["waveforms"]:
        assert (w["status"], w["markers"], w["residual_noise_uv"]) == ("uncertain", [], None)


def test_comments_byte_order_mark_and_rounded_time_are_accepted(tmp_path):
    body = "".join(f"{k / 2.048:.3f},{v:.4f}\n" for k, v in enumerate(wave()[:200]))
    file = tmp_path / "w.csv"
    file.write_bytes(b"\xef\xbb\xbf# a comment\ntime_ms,w\n" + body.encode())
    assert len(analyze(file, test_file(tmp_path))["waveforms"]) == 1
