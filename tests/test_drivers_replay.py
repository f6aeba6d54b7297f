"""Recordings: every format reads the same everywhere, wrong files say what is wrong, holes stay holes."""

from __future__ import annotations

import datetime

import edfio
import mne
import numpy as np
import pyedflib
import pytest

from ionmd.drivers.recording import edge_samples, open_recording, select_triggers
from ionmd.drivers.registry import amplifier_class
from ionmd.drivers.replay import Replay
from ionmd.errors import ConfigError
from ionmd.model import AuxLine, Block, Gap, MarkKind
from tests.data_dir import data_dir
from tests.edf_writer import Sig, tal, write

RNG = np.random.default_rng(5)


def play(amp: Replay, capacity: int = 37, limit: int | None = None) -> list[Block]:
    out = []
    while True:
        b = Block(capacity, amp._inputs, 1.0)
        if not amp.read_into(b, limit):
            return out
        out.append(b)


def eeg(records: int = 4, n: int = 50, hi: int = 30_000) -> np.ndarray:
    return RNG.integers(-hi, hi, (records, n))


# ---------------------------------------------------------------- the same as other readers


@pytest.mark.parametrize("name", ["short_psg.edf", "short_psg.bdf"])
def test_real_recordings_read_as_edfio_pyedflib_and_mne_read_them(name):
    path = data_dir() / "eeg-edf" / name
    rec = open_recording(path)
    mine = rec.read(0, rec.n_samples)
    assert rec.labels == ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal") and rec.rate_hz == 100.0
    assert set(rec.skipped) == {"Resp oro-nasal", "Temp rectal", "Event marker", "EMG submental"}
    theirs = edfio.read_edf(path) if name.endswith("edf") else edfio.read_bdf(path)
    for i, label in enumerate(rec.labels):
        want = theirs.get_signal(label).data
        assert np.allclose(mine[:, i], want, rtol=3e-7, atol=1e-5)
    with pyedflib.EdfReader(str(path)) as f:
        at = [s.strip() for s in f.getSignalLabels()].index("EEG Pz-Oz")
        assert np.allclose(mine[:, 1], f.readSignal(at), rtol=3e-7, atol=1e-5)
    reader = mne.io.read_raw_edf if name.endswith("edf") else mne.io.read_raw_bdf
    raw = reader(path, verbose="error", include=["EEG Fpz-Cz"])
    assert np.allclose(mine[:, 0], raw.get_data()[0] * 1e6, rtol=3e-6, atol=1e-4)


def test_edf_and_bdf_of_one_night_are_equal():
    a, b = (open_recording(data_dir() / "eeg-edf" / f"short_psg.{x}") for x in ("edf", "bdf"))
    assert np.allclose(a.read(0, a.n_samples), b.read(0, b.n_samples), rtol=1e-6, atol=1e-5)
    slow = open_recording(data_dir() / "eeg-edf" / "short_psg.edf", rate_hz=1.0)
    assert slow.labels == ("EMG submental",) and slow.n_samples == 300


@pytest.mark.parametrize("kind", ["edf", "bdf"])
def test_a_file_written_by_edfio_gives_its_samples_and_annotations(tmp_path, kind):
    x = RNG.normal(0, 30, (2, 2000))
    notes = [edfio.EdfAnnotation(0.25, None, "SSEP left"), edfio.EdfAnnotation(1.5, 0.5, "MEP µ")]
    signal, file = (edfio.EdfSignal, edfio.Edf) if kind == "edf" else (edfio.BdfSignal, edfio.Bdf)
    f = file([signal(v, 1000, label=f"C{i}", physical_dimension="uV") for i, v in enumerate(x)], annotations=notes,
             starttime=datetime.time(1, 2, 3, 500_000))  # fmt: skip
    path = tmp_path / f"x.{kind}"
    f.write(path)
    rec = open_recording(path)
    assert rec.labels == ("C0", "C1") and rec.n_samples == 2000
    assert np.allclose(rec.read(0, 2000), np.stack([s.data for s in f.signals], 1), rtol=3e-7, atol=1e-4)
    assert [(t.sample, t.text, t.duration_s) for t in rec.triggers] == [(250, "SSEP left", 0.0), (1500, "MEP µ", 0.5)]


# ---------------------------------------------------------------- playing


@pytest.mark.parametrize("capacity", [1, 7, 50, 5000])
def test_blocks_of_any_size_give_the_file_sample_by_sample(tmp_path, capacity):
    d = [eeg(), eeg()]
    write(tmp_path / "a.edf", [Sig("A", d[0]), Sig("B", d[1], unit="mV", pmin="-1", pmax="1")])
    amp = Replay(tmp_path / "a.edf")
    identity = amp.open()
    assert identity.source == "replay" and identity.inputs[1].lsb_uv == pytest.approx(2000 / 65535)
    amp.start()
    blocks = play(amp, capacity)
    counts = np.concatenate([b.counts[: b.n, :2] for b in blocks])
    assert np.array_equal(counts, np.stack([x.ravel() for x in d], 1))
    uv = np.concatenate([b.uv[: b.n, :2] for b in blocks])
    assert np.array_equal(uv, amp.recording.read(0, 200))
    assert np.allclose(uv[:, 1], ((d[1].ravel() + 32768) * 2000 / 65535 - 1000), atol=1e-3)
    assert blocks[0].gap == Gap.SESSION and not any(b.gap for b in blocks[1:])
    for b in blocks:
        assert np.array_equal(b.lo[:2], b.uv[: b.n, :2].min(0)) and np.array_equal(b.hi[:2], b.uv[: b.n, :2].max(0))
    assert amp.at_end and amp.stats().samples == 200
    amp.close()
    amp.close()


def test_holes_of_a_discontinuous_file_are_gaps_of_exact_length(tmp_path):
    d = eeg(4)
    onsets = ["+0", "+1", "+3.5", "+4.5"]
    notes = Sig("EDF Annotations", np.zeros((4, 30)), "", "-1", "1",
                raw=[tal(o) + (tal("+3.6", "hit") if i == 2 else b"") for i, o in enumerate(onsets)])  # fmt: skip
    write(tmp_path / "d.edf", [Sig("A", d), notes], reserved="EDF+D")
    amp = Replay(tmp_path / "d.edf")
    amp.open()
    assert [(s.first, s.row, s.n) for s in amp.recording.header.segments] == [(0, 0, 100), (175, 100, 100)]
    assert amp.recording.n_samples == 275
    amp.start()
    blocks = play(amp, 60)
    assert [(b.first, b.n, b.lost, bool(b.gap & Gap.LOST)) for b in blocks] == [
        (0, 60, 0, False), (60, 40, 0, False), (175, 60, 75, True), (235, 40, 0, False)]  # fmt: skip
    marks = [m for b in blocks for m in b.marks]
    assert [(m.kind, m.sample, m.output) for m in marks] == [(MarkKind.AUX, 180, AuxLine.EXTERNAL_TRIGGER)]
    assert amp.triggers[marks[0].nonce - 1].text == "hit"
    whole = amp.recording.read(90, 100)
    assert np.isnan(whole[10:85]).all() and np.isfinite(whole[:10]).all() and np.isfinite(whole[85:]).all()


def test_a_limit_splits_a_block_and_a_limit_in_a_hole_gives_the_hole_alone(tmp_path):
    notes = Sig("EDF Annotations", np.zeros((2, 10)), "", "-1", "1", raw=[tal("+0"), tal("+4")])
    write(tmp_path / "d.edf", [Sig("A", eeg(2)), notes], reserved="EDF+D")
    amp = Replay(tmp_path / "d.edf")
    amp.open()
    amp.start()
    seen = []
    for limit in (20, 60, 60, 250):
        b = Block(100, 1, 50.0)
        assert amp.read_into(b, limit)
        seen.append((b.first, b.n, b.lost))
    assert seen == [(0, 20, 0), (20, 30, 0), (200, 0, 150), (200, 50, 0)]


def test_paced_replay_gives_only_what_time_has_brought(tmp_path):
    write(tmp_path / "a.edf", [Sig("A", eeg(4))])
    now = [100.0]
    amp = Replay(tmp_path / "a.edf", speed=2.0, now_s=lambda: now[0])
    amp.open()
    amp.start()
    b = Block(60, 1, 50.0)
    assert not amp.read_into(b) and b.n == 0
    now[0] += 0.5
    assert not amp.read_into(b) and b.n == 50
    now[0] += 0.2
    assert amp.read_into(b) and b.n == 60


def test_status_codes_of_a_bdf_become_triggers_at_their_rising_edge(tmp_path):
    status = np.zeros((4, 50), int)
    status[0, 10:14] = 5
    status[1, 3] = 7
    status[1, 4:9] = 300
    status |= 0x7E0000  # the receiver's own bits
    full = {"dmin": "-8388608", "dmax": "8388607"}
    write(tmp_path / "s.bdf", [Sig("A", eeg(), **full), Sig("Status", status, "Boolean", **full)], bdf=True)
    rec = open_recording(tmp_path / "s.bdf")
    assert rec.labels == ("A",)
    assert [(t.sample, t.code) for t in rec.triggers] == [(10, 5), (53, 7), (54, 300)]
    assert [t.sample for t in select_triggers(rec.triggers, "status", "7")] == [53]
    assert len(select_triggers(rec.triggers, "status")) == 3
    with pytest.raises(ConfigError, match="whole number"):
        select_triggers(rec.triggers, "status", "x")


def test_annotations_are_picked_by_text_and_wildcard(tmp_path):
    notes = Sig("EDF Annotations", np.zeros((4, 40)), "", "-1", "1",
                raw=[tal(f"+{i}") + tal(f"+{i}.5", f"stim {i}", "other") for i in range(4)])  # fmt: skip
    write(tmp_path / "a.edf", [Sig("A", eeg()), notes], reserved="EDF+C")
    t = open_recording(tmp_path / "a.edf").triggers
    assert [x.sample for x in select_triggers(t, "annotation", "stim 2")] == [125]
    assert [x.sample for x in select_triggers(t, "annotation", "stim *")] == [25, 75, 125, 175]
    assert len(select_triggers(t, "annotation")) == 8
    assert select_triggers(t, "status") == []
    with pytest.raises(ConfigError, match="nonsense"):
        select_triggers(t, "nonsense")


# ---------------------------------------------------------------- CSV


def test_csv_in_seconds_and_in_milliseconds_with_its_trigger_column(tmp_path):
    x = RNG.normal(0, 20, (400, 2)).round(3)
    pulse = np.zeros(400)
    pulse[[50, 51, 52, 150]] = 1
    for unit, step in (("s", 0.0005), ("ms", 0.5)):
        path = tmp_path / f"{unit}.csv"
        lines = [f"time_{unit},APB,trigger,TA"]
        lines += [f"{k * step - 0.01:.6f},{a},{p:g},{b}" for k, ((a, b), p) in enumerate(zip(x, pulse, strict=True))]
        path.write_text("\n".join(lines) + "\n")
        rec = open_recording(path)
        assert rec.labels == ("APB", "TA") and rec.rate_hz == 2000.0
        assert np.allclose(rec.read(0, 400), x, atol=1e-5)
        assert [t.sample for t in rec.triggers] == [50, 150]
        counts, uv = rec.rows(0, 400)
        assert np.allclose(counts * rec.header.lsb_uv, uv, atol=1e-3)


def test_edges_follow_their_rule():
    x = np.array([0, 0, 5, 5, 0, 0, 9, 0.0])
    assert list(edge_samples(x, "rising")) == [2, 6]
    assert list(edge_samples(x, "falling")) == [4, 7]
    assert list(edge_samples(x, "> 6")) == [6]
    assert list(edge_samples(x, "< 6")) == [7]
    for bad in ("> x", "up", "> nan", ">"):
        with pytest.raises(ConfigError, match="onset_rule"):
            edge_samples(x, bad)


@pytest.mark.parametrize(("text", "says"), [
    ("t,A\n0,1\n1,2\n", "time_s or time_ms"),
    ("time_s\n0\n", "line 1"),
    ("time_s,A,A\n0,1,2\n", "appears twice"),
    ("time_s,A,\n0,1,2\n", "has no name"),
    ("time_s,A\n", "no samples"),
    ("time_s,A\n0,1\n", "at least 2"),
    ("time_s,A\n0,1\n1,x\n", "line 3, column A: 'x'"),
    ("time_s,A\n0,1\n1,nan\n", "line 3, column A: 'nan'"),
    ("time_s,A\n0,1\n1,inf\n", "line 3, column A: 'inf'"),
    ("time_s,A\n0,1\n1,2,3\n", "line 3: 3 values"),
    ("time_s,A\n0,1\n1,2\n2.6,3\n3,4\n", "line 4: time 2.6 s"),
    ("time_s,A\n1,1\n1,2\n", "time does not grow"),
    ("time_s,trigger\n0,1\n1,2\n", "no column in uV"),
])  # fmt: skip
def test_a_wrong_csv_says_where_and_what(tmp_path, text, says):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ConfigError, match=says):
        open_recording(tmp_path / "x.csv")


# ---------------------------------------------------------------- wrong EDF


def test_every_wrong_header_field_is_named(tmp_path):
    good = Sig("A", eeg())
    p = tmp_path / "x.edf"

    def says(text: str, *signals: Sig, **kw: str) -> None:
        write(p, list(signals) or [good], **kw)
        with pytest.raises(ConfigError, match=text):
            open_recording(p)

    says("version: b'1 ", version="1")
    says("number of bytes in header: 'x'", header_bytes="x")
    says("number of bytes in header: 768", header_bytes="768")
    says("number of signals", n_signals="0")
    says("number of signals: 'two'", n_signals="two")
    says("number of data records: 'many'", n_records="many")
    says("number of data records: 5 came, at most the 4", n_records="5")
    says("number of data records: 0", n_records="0")
    says("duration of a data record: 'nan'", duration="nan")
    says("duration of a data record: 0.0", duration="0")
    says("duration of a data record: 'x'", duration="x")
    says(r"signal 1 \(A\): number of samples in a record", Sig("A", eeg(), n="0"))
    says(r"signal 1 \(A\): digital minimum: -40000", Sig("A", eeg(), dmin="-40000"))
    says(r"signal 1 \(A\): digital maximum: -5 came, a number above", Sig("A", eeg(), dmin="0", dmax="-5"))
    says(r"signal 1 \(A\): physical maximum", Sig("A", eeg(), pmin="5", pmax="5"))
    says(r"signal 1 \(A\): physical minimum: 'inf'", Sig("A", eeg(), pmin="inf"))
    says("physical dimension", Sig("A", eeg(), unit="mmHg"))
    says("EDF[+]D only with", reserved="EDF+D")
    notes = Sig("EDF Annotations", np.zeros((4, 20)), "", "-1", "1")
    says("onset: 'abc'", good, Sig(**{**notes.__dict__, "raw": [b"abc\x14\x14\0"] * 4}))
    early = Sig(**{**notes.__dict__, "raw": [tal(f"+{k / 5}") for k in range(4)]})
    says("record 2: onset: 0.2 came, no overlap", good, early, reserved="EDF+D")
    p.write_bytes(b"0       ")
    with pytest.raises(ConfigError, match="at least 256"):
        open_recording(p)
    with pytest.raises(ConfigError, match="cannot be read"):
        open_recording(tmp_path / "none.edf")
    with pytest.raises(ConfigError, match="no channel at 77 Hz; there are 50 Hz"):
        write(p, [good])
        open_recording(p, rate_hz=77)


def test_an_unfinished_file_is_read_as_far_as_it_goes(tmp_path):
    write(tmp_path / "x.edf", [Sig("A", eeg())], n_records="-1")
    with (tmp_path / "x.edf").open("ab") as f:
        f.write(b"\1\2\3")
    assert open_recording(tmp_path / "x.edf").n_samples == 200


def test_a_damaged_header_never_gives_anything_but_a_clear_error(tmp_path):
    write(tmp_path / "x.edf", [Sig("A", eeg()), Sig("B", eeg())])
    whole = bytearray((tmp_path / "x.edf").read_bytes())
    rng = np.random.default_rng(3)
    for _ in range(300):
        bad = bytearray(whole)
        for at in rng.integers(0, 768, 3):
            bad[at] = rng.integers(0, 256)
        (tmp_path / "y.edf").write_bytes(bad)
        try:
            rec = open_recording(tmp_path / "y.edf")
            rec.read(0, min(100, rec.n_samples))
        except ConfigError:
            pass


# ---------------------------------------------------------------- registry


def test_the_registry_knows_the_built_in_drivers_and_names_them():
    assert amplifier_class("replay") is Replay
    with pytest.raises(ConfigError, match="demo, ionm1, replay"):
        amplifier_class("brainvision")
