"""The scenario file: what ships, what docs/scenarios.md says, and what a bad one is told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firmware_sim import events, scenario
from firmware_sim.montage import LAYOUT
from firmware_sim.scenario import SHIPPED, Body, Device, Electrode, Head, Noise, Scenario, available, load, parse
from firmware_sim.scenario_check import LIMITS, table_of
from firmware_sim.unit import build
from ionmd.agenda import Step
from ionmd.errors import ConfigError
from tests.rig import CaseRun

DOC = (Path(__file__).parents[1] / "docs" / "scenarios.md").read_text(encoding="utf-8")
TABLES = {"scenario": Head, "device": Device, "patient": Body, "noise": Noise, "electrode": Electrode}
TABLES["operator"] = scenario.Step
EVENTS = {t.__struct_config__.tag: t for t in typing.get_args(events.Event)}
COMMON = ("at_s", "at_sample", "note")
HEAD = '[scenario]\nname = "x"\n'


def documented(heading: str) -> dict[str, list[str]]:
    """key -> [unit, limits, default, meaning] of the table under that heading."""
    section = re.split(rf"^#+ {re.escape(heading)}$", DOC, flags=re.MULTILINE)[1]
    section = re.split(r"^#", section, flags=re.MULTILINE)[0]
    lines = re.findall(r"^\|.*$", section, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    return {row[0]: (row[1:] + [""] * 4)[:4] for row in rows if row[0] not in ("key", "---")}


# ------------------------------------------------------------------ the document


def pairs() -> list[tuple[str, str, type]]:
    """(heading, row of LIMITS, type)"""
    tables = [(f"[{n}]" if n not in ("electrode", "operator") else f"[[{n}]]", n, t) for n, t in TABLES.items()]
    return tables + [(kind, table_of("event", kind), t) for kind, t in EVENTS.items()]


@pytest.mark.parametrize("heading, limits, kind", pairs(), ids=[p[0] for p in pairs()])
def test_the_document_has_every_key_with_unit_limits_and_default(heading, limits, kind):
    told = documented(heading)
    fields = {f.name: f for f in msgspec.structs.fields(kind)}
    if limits not in TABLES:
        fields = {n: f for n, f in fields.items() if n not in COMMON}
    assert list(told) == list(fields)
    for name, field in fields.items():
        unit, limit, default, _ = told[name]
        if name in LIMITS[limits]:
            low, high = LIMITS[limits][name]
            assert limit == f"{low:.12g} to {high:.12g}" or (name == "seed" and limit == f"{low} to {high}"), name
            suffix = name.rpartition("_")[2]
            expected = {"s": "s", "ms": "ms", "uv": "uV", "mv": "mV", "ma": "mA", "kohm": "kohm", "hz": "Hz", "c": "C",
                        "cm": "cm", "sample": "samples", "samples": "samples"}  # fmt: skip
            assert unit == (expected.get(suffix, "") if "_" in name else unit), name
        for allowed in typing.get_args(field.type):
            if isinstance(allowed, str):
                assert allowed in limit, name
        assert default == said(field), name


def said(field: msgspec.structs.FieldInfo) -> str:
    """A default as the document writes it."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None:
        return "none"
    if value in ([], {}):
        return "empty"
    if field.name == "outputs":
        return "all but none, in this order"
    if isinstance(value, list):
        return ", ".join(value)
    return json.dumps(value) if isinstance(value, (str, bool)) else f"{value:g}"


def test_the_document_says_what_every_event_shares():
    told = documented("Events")
    assert set(told) == set(COMMON)
    for name in ("at_s", "at_sample"):
        for kind in EVENTS:
            low, high = LIMITS[table_of("event", kind)][name]
            assert told[name][1] == f"{low:.12g} to {high:.12g}"


def test_every_number_of_every_table_has_limits():
    for _, limits, kind in pairs():
        for field in msgspec.structs.fields(kind):
            plain = {field.type, *typing.get_args(field.type)}
            if plain & {int, float}:
                assert field.name in LIMITS[limits], (limits, field.name)
    assert LIMITS["aux"]["level"] == (0, 1)


def test_the_document_lists_the_scenarios_that_ship_and_the_layout():
    assert set(documented("Scenarios that ship")) - {"name"} == set(available())
    section = DOC.split("## The layout")[1].split("##")[0]
    assert set(re.findall(r"[A-Z][\w-]*\d?[LR]?[+-]?", section)) >= set(LAYOUT)


def test_the_examples_of_the_document_are_scenarios():
    blocks = re.findall(r"```toml\n(.*?)```", DOC, re.DOTALL)
    assert [parse(block).name for block in blocks] == ["mine"]


# ------------------------------------------------------------------ what ships


@pytest.mark.parametrize("name", available())
def test_a_scenario_that_ships_has_its_own_name_and_one_line_of_description(name):
    s = load(name)
    assert s.name == name
    assert 10 < len(s.scenario.title) <= 90 and "\n" not in s.scenario.title
    last = max((e.sample(s.device.rate_hz) for e in s.events), default=0)
    assert last < s.scenario.duration_s * s.device.rate_hz


@pytest.mark.parametrize("name", [n for n in available() if n != "real_ssep"])
def test_its_truth_is_machine_readable_and_says_what_it_does_to_the_patient(name):
    told = json.loads(json.dumps(build(name, "max").patient.truth()))
    causes = {(c["cause"], c.get("side")) for c in told["changes"] if c["patient"]}
    assert causes == {
        "quiet": set(), "faults": set(), "cautery": set(), "electrode_pulled": set(),
        "demo": {("focal", "right")}, "cord_bilateral": {("focal", "both")},
        "arm_position": {("peripheral", "left"), ("peripheral", None)}, "anaesthesia": {("systemic", "both")},
    }[name]  # fmt: skip
    for change in told["changes"]:
        assert 0 <= change["onset_sample"] < told["duration_samples"]
    assert told["responses"]["ssep_median_left"]["CP4-Fpz"]["peak_to_peak_uv"] > 1.0


def ionmd_sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "firmware_sim.cli", *arguments], capture_output=True, text=True, timeout=60,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip


def test_ionmd_sim_lists_the_scenarios_with_their_titles():
    lines = ionmd_sim("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == available()
    assert all(load(line.split()[0]).scenario.title in line for line in lines)


def test_ionmd_sim_prints_the_truth_of_a_scenario():
    done = ionmd_sim("--scenario", "cord_bilateral", "--truth", "--inputs", "16")
    told = json.loads(done.stdout)
    assert (done.returncode, told["scenario"], told["inputs"]) == (0, "cord_bilateral", 16)
    assert told["changes"][0]["level"] == "T8"


# ------------------------------------------------------------------ what is refused

BAD = {
    "no name": ("[scenario]\n", "missing required field `name`"),
    "empty name": ('[scenario]\nname = ""\n', "scenario.name is ''"),
    "unknown table": (HEAD + "[patients]\n", "patients"),
    "unknown key": (HEAD + "[noise]\nloud = 1\n", "loud"),
    "wrong type": (HEAD + '[noise]\neeg_uv = "much"\n', "noise.eeg_uv is 'much'"),
    "a boolean for a number": (HEAD + "[noise]\neeg_uv = true\n", "noise.eeg_uv is True"),
    "not a number": (HEAD + "[noise]\neeg_uv = nan\n", "noise.eeg_uv is nan, expected 0 to 1000"),
    "infinite": (HEAD + "[noise]\neeg_uv = inf\n", "noise.eeg_uv is inf, expected 0 to 1000"),
    "negative": (HEAD + "[noise]\neeg_uv = -1\n", "noise.eeg_uv is -1, expected 0 to 1000"),
    "half an input": (HEAD + "[device]\ninputs = 8.5\n", "device.inputs is 8.5"),
    "too fast": (HEAD + "[device]\nrate_hz = 50000\n", "device.rate_hz is 50000, expected 1000 to 40000"),
    "a target that is none": (HEAD + '[device]\noutputs = ["ear"]\n', "device.outputs is 'ear', expected one of"),
    "no time": (HEAD + '[[event]]\nkind = "cautery"\n', "exactly one of at_s and at_sample"),
    "two times": (HEAD + '[[event]]\nkind = "cautery"\nat_s = 1\nat_sample = 1\n', "exactly one of at_s and at_sample"),
    "before the beginning": (HEAD + '[[event]]\nkind = "cautery"\nat_s = -1\n', "event[0].at_s is -1, expected 0"),
    "ends before it starts": (
        HEAD + '[[event]]\nkind = "lead_off"\noutput = 0\nat_s = 9\nuntil_s = 9\n', "event[0].until_s is 9"),
    "an unknown event": (HEAD + '[[event]]\nkind = "earthquake"\nat_s = 1\n', "earthquake"),
    "an event without kind": (HEAD + "[[event]]\nat_s = 1\n", "kind"),
    "a loss of nothing": (HEAD + '[[event]]\nkind = "loss"\nat_s = 1\n', "nerves, muscles or both"),
    "an unknown nerve": (HEAD + '[[event]]\nkind = "loss"\nat_s = 1\nnerves = ["ulnar"]\n', "nerves is 'ulnar'"),
    "an unknown muscle": (HEAD + '[[event]]\nkind = "emg"\nat_s = 1\nmuscle = "FDI-L"\n', "event[0].muscle is 'FDI-L'"),
    "an unknown electrode": (
        HEAD + '[[event]]\nkind = "electrode"\nat_s = 1\nelectrodes = ["C4"]\n', "event[0].electrodes is 'C4'"),
    "an electrode beyond the inputs": (
        HEAD + '[device]\ninputs = 4\n[[event]]\nkind = "electrode"\nat_s = 1\nelectrodes = ["Cz"]\n', "is 'Cz'"),
    "an output that is not there": (HEAD + '[[event]]\nkind = "lead_off"\nat_s = 1\noutput = 6\n', "expected 0 to 5"),
    "a step without method": (HEAD + '[[operator]]\nat_s = 1\nmethod = ""\n', "operator[0].method is ''"),
    "an array that should be a table": (HEAD + "event = 5\n", "event"),
    "not TOML": ("[scenario\n", "not valid TOML"),
    "not UTF-8": (b"\xff\xfe", "not valid TOML"),
    "a deep hole": ("x = " + "[" * 100_000, "not valid TOML"),
    "a large file": (b"#" * ((1 << 20) + 1), "more than 1048576 bytes"),
    "a huge number": (HEAD + "[device]\ninputs = 1" + "0" * 400 + "\n", "expected 1 to 64"),
}  # fmt: skip


@pytest.mark.parametrize("text, says", BAD.values(), ids=BAD)
def test_a_bad_scenario_is_told_file_key_what_came_and_what_was_expected(text, says):
    with pytest.raises(ConfigError) as caught:
        parse(text, "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["nonsense", "demo\0", "", ".", "a/b", "/", "x.toml", "\0.toml", "*", "../demo"])
def test_a_scenario_that_is_not_there_is_told_what_there_is(name):
    with pytest.raises(ConfigError, match=r"expected one of|cannot be read"):
        load(name)


def test_a_bad_scenario_ends_the_simulator_with_2_before_it_listens(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text(HEAD + "[noise]\neeg_uv = -3\n")
    done = ionmd_sim("--scenario", str(bad), "--listen", f"unix:{tmp_path}/s")
    assert done.returncode == 2 and done.stdout == ""
    assert f"{bad}: noise.eeg_uv is -3, expected 0 to 1000" in done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "step, says",
    [(Step(1, "nonsense.do"), "agenda: method 'nonsense.do' came, expected one of"),
     (Step(7, "person.sign_in", {"age": 3}), "agenda: person.sign_in at sample 7: ")],
)  # fmt: skip
def test_an_operators_step_that_the_daemon_does_not_know_is_told(tmp_path, step, says):
    with pytest.raises(ConfigError) as caught:
        CaseRun(tmp_path, "quiet", [step], 1.0)
    assert says in str(caught.value)


# ------------------------------------------------------------------ garbage

KEYS = sorted({f.name for t in [*TABLES.values(), *EVENTS.values()] for f in msgspec.structs.fields(t)} | {"kind"})
SCALARS = st.one_of(
    st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from([*EVENTS, *events.NERVES, *events.MUSCLES, *events.STAGES, "off", "tes", "Cz", 0, 1, 1.5, 300]),
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)),
    max_leaves=12,
)
ROWS = st.dictionaries(st.sampled_from(KEYS), TREES, max_size=6)
FILES = st.fixed_dictionaries(
    {}, optional={name: st.one_of(ROWS, st.lists(ROWS, max_size=3), TREES) for name in [*TABLES, "event", "other"]}
)


def toml(value: object) -> str:
    """Inline TOML of plain data."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(repr(value), repr(value))
    return json.dumps(value) if isinstance(value, str) else str(value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(FILES)
@example({"scenario": {"name": "x"}, "event": [{"kind": "loss", "at_s": 1, "nerves": "median_left"}]})
@example({"scenario": {"name": "x"}, "event": [{"kind": ["loss"], "at_s": 1}]})
@example({"scenario": [{"name": "x"}], "device": {"outputs": [1, 2]}})
def test_no_file_of_tables_and_values_does_anything_but_load_or_be_refused(data):
    text = "".join(f"{name} = {toml(value)}\n" for name, value in data.items())
    try:
        made = parse(text, "mine.toml")
    except ConfigError as e:
        assert str(e).startswith("mine.toml: ")
    else:
        assert isinstance(made, Scenario)
        assert tomllib.loads(text)["scenario"]["name"] == made.name


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))))
def test_no_bytes_do_anything_but_load_or_be_refused(raw):
    with pytest.raises(ConfigError, match=r"^mine\.toml: "):
        parse(raw, "mine.toml")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_a_scenario_that_ships_with_one_value_changed_loads_or_is_refused(data):
    tree = tomllib.loads((SHIPPED / f"{data.draw(st.sampled_from(available()))}.toml").read_text(encoding="utf-8"))
    table = data.draw(st.sampled_from(sorted(tree)))
    row = tree[table] if isinstance(tree[table], dict) else data.draw(st.sampled_from(tree[table]))
    row[data.draw(st.sampled_from(KEYS))] = data.draw(TREES)
    try:
        parse("".join(f"{name} = {toml(value)}\n" for name, value in tree.items()), "mine.toml")
    except ConfigError as e:
        assert str(e).startswith("mine.toml: ")
