"""The shipped catalogue loads, fits its template, and every wrong file is refused with file, key, came and expected."""

import pytest

from ionmd import catalog
from ionmd.catalog import load_template, load_test, resolve_test
from ionmd.catalog.expression import parse
from ionmd.errors import ConfigError

IDS = {
    "ssep_median_left", "ssep_median_right", "ssep_tibial_left", "ssep_tibial_right",
    "mep_tes", "tof", "temg_probe", "emg_free",
}  # fmt: skip

GOOD = """
[test]
id = "animal_abr"
modality = "evoked"
[epoch]
start_ms = 0.0
stop_ms = 8.5
[filter]
band_hz = [200, 10000]
order = 1
[channels]
abr = "a - b"
[[marker]]
label = "P1"
polarity = "positive"
window_ms = [1.0, 2.0]
order = 1
[[marker]]
label = "N1"
polarity = "negative"
window_ms = [1.2, 3.0]
order = 2
[[measure]]
label = "P1-N1"
from = "P1"
to = "N1"
"""


def write(tmp_path, text):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return file


def test_the_tests_and_the_cervical_template_load():
    assert set(catalog.tests()) == IDS | {"baep_left", "baep_right", "vep_flash"}
    cervical = catalog.templates()["cervical"]
    assert set(cervical.tests) == IDS
    assert [e.label for e in cervical.electrode][:12] == [
        "Fpz", "CP3", "CP4", "CPz", "Cz", "C5S", "EPL", "EPR", "PFL+", "PFL-", "PFR+", "PFR-",
    ]  # fmt: skip
    assert [e.input for e in cervical.electrode] == list(range(28))
    assert [o.jack for o in cervical.output] == list(range(6))


def test_left_median_records_the_right_hemisphere():
    d = catalog.tests()["ssep_median_left"]
    assert [x.label for x in d.derivations] == ["CP4-Fpz", "CP4-CP3", "C5S-Fpz", "EPL-EPR"]
    assert [x.role for x in d.derivations][-1] == "peripheral control"


def test_a_file_of_the_user_is_read_with_its_channels(tmp_path):
    d = load_test(write(tmp_path, GOOD))
    assert d.channels == {"abr": "a - b"} and d.filter.band_hz == (200.0, 10000.0)
    assert resolve_test(str(write(tmp_path, GOOD))).test.id == "animal_abr"


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("order = 1\n[channels]", "order = true\n[channels]", ["filter.order", "True", "int"]),
        ("stop_ms = 8.5", "stop_ms = nan", ["epoch.stop_ms", "nan", "finite"]),
        ("stop_ms = 8.5", "stop_ms = inf", ["epoch.stop_ms", "inf"]),
        ("stop_ms = 8.5", "stop_ms = 8.5\ncolour = 1", ["epoch.colour", "unknown key"]),
        ("stop_ms = 8.5", "stop_ms = '8'", ["epoch.stop_ms", "'8'", "float"]),
        ("stop_ms = 8.5", "stop_ms = -1.0", ["epoch"]),
        ('modality = "evoked"', 'modality = "magic"', ["test.modality", "'magic'"]),
        ('modality = "evoked"', "", ["test.modality", "nothing"]),
        ('id = "animal_abr"', 'id = "Animal ABR"', ["test.id"]),
        ("[1.0, 2.0]", "[1.0, 9.0]", ["marker[0] P1.window_ms", "[1.0, 9.0]", "8.5"]),
        ("[1.0, 2.0]", "[2.0, 1.0]", ["P1.window_ms"]),
        ("[1.0, 2.0]", "[1.0, true]", ["marker[0].window_ms[1]", "True"]),
        ('to = "N1"', 'to = "N7"', ["P1-N1.to", "'N7'", "N1, P1"]),
        ('label = "N1"', 'label = "P1"', ["marker[1].label", "'P1'"]),
        ("[200, 10000]", "[10000, 200]", ["filter.band_hz"]),
        ('abr = "a - b"', 'abr = "a - "', ["channels.abr", "the end"]),
        ('abr = "a - b"', 'abr = "__import__(os)"', ["channels.abr"]),
        ("[epoch]", "[trigger]\nsource = 'column'\n[epoch]", ["trigger.onset_column"]),
        ("[epoch]", "[trigger]\nsource = 'annotation'\n[epoch]", ["trigger.code"]),
        ("[epoch]", "[trigger]\nonset_column = 'mic'\nonset_rule = 'loud'\nsource = 'column'\n[epoch]",
         ["trigger.onset_rule", "'loud'"]),
        ("[epoch]", "[average]\nsweeps = 0\n[epoch]", ["average.sweeps", "0"]),
        ("[epoch]", "[presence]\npresent_score = 0.1\n[epoch]", ["presence.present_score"]),
        ("[test]", "[test", ["TOML"]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_and_the_message_names(tmp_path, old, new, names):
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load_test(write(tmp_path, GOOD.replace(old, new, 1)))
    text = str(caught.value)
    assert "mine.toml" in text
    for name in names:
        assert name in text, text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stop_ms = 8.5", "stop_ms = nan"), ("stop_ms = 8.5", "stop_ms = '8'"), ("[1.2, 3.0]", "[1.2, 9.0]"),
        ('to = "N1"', 'to = "N7"'), ("order = 1\n[channels]", "order = 99\n[channels]"),
        ('abr = "a - b"', 'abr = "a b"'),
    ],
)  # fmt: skip
def test_the_message_names_the_line_on_which_the_wrong_value_stands(tmp_path, old, new):
    text = GOOD.replace(old, new, 1)
    with pytest.raises(ConfigError) as caught:
        load_test(write(tmp_path, text))
    wrong = new.splitlines()[0]
    line = next(i for i, x in enumerate(text.splitlines(), 1) if wrong in x)
    assert f"mine.toml:{line}: " in str(caught.value), caught.value


def test_a_repeated_input_of_a_template_is_found_where_it_repeats(tmp_path):
    from ionmd.catalog import HERE

    text = (HERE / "templates" / "cervical.toml").read_text().replace("input = 3\n", "input = 2\n")
    with pytest.raises(ConfigError) as caught:
        load_template(write(tmp_path, text))
    at = [i for i, x in enumerate(text.splitlines(), 1) if x == "input = 2"]
    assert f"mine.toml:{at[1]}: electrode[3].input: 2 came" in str(caught.value)


def test_a_missing_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_test(tmp_path / "nothing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_test(tmp_path / "binary.toml")
    with pytest.raises(ConfigError, match="ssep_median_left"):
        resolve_test("ssep_median")


def test_a_template_that_names_what_is_not_there_is_refused(tmp_path):
    from ionmd.catalog import HERE

    text = (HERE / "templates" / "cervical.toml").read_text()
    for old, new, name in [
        ('"tof", "temg_probe"', '"tofu", "temg_probe"', "'tofu'"),
        ('label = "CP3"', 'label = "XX3"', "'CP3'"),
        ("mains_hz = 50.0", "mains_hz = 55.0", "55.0"),
        ('name = "probe"', 'name = "stick"', "'probe'"),
        ("input = 3\n", "input = 2\n", "electrode[3].input"),
        ('derivation = "PFL"', 'derivation = "PFX"', "'PFX'"),
        ('measure = "P37-N45"', 'measure = "P38-N45"', "'P38-N45'"),
    ]:
        assert old in text
        with pytest.raises(ConfigError) as caught:
            load_template(write(tmp_path, text.replace(old, new, 1)))
        assert name in str(caught.value)


def test_expressions_follow_the_usual_precedence():
    import numpy as np

    columns = {"A1": np.array([2.0]), "A2": np.array([4.0]), "C5S.a": np.array([1.0]), "my col": np.array([8.0])}
    for text, value in [
        ("A1 + A2 * 2", 10.0), ("(A1 + A2) / 2", 3.0), ("-A1 - -A2", 2.0), ("A2 - A1 - C5S.a", 1.0),
        ('"my col" / A1 / A2', 1.0), ("1e3 * A1", 2000.0), ("2*A1", 4.0),
    ]:  # fmt: skip
        assert parse(text)(columns)[0] == value
    for text in ["", "1 + 2", "A1 A2", "A1 **2", "A1; A2", "(A1", "A1)", "A1/0", "A1 & A2", "'A1'", "(" * 60 + "A1"]:
        with pytest.raises(ConfigError):
            parse(text)
