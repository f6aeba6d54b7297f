"""docs/test-file.md says of every key what ionmd/testdef.py says of it, and its examples load."""

from pathlib import Path

import msgspec
import pytest

from ionmd import testdef as td
from ionmd.catalog import load_test

PAGE = (Path(__file__).parents[1] / "docs" / "test-file.md").read_text(encoding="utf-8")
TABLES = {
    "[test]": td.TestHead, "[epoch]": td.Epoch, "[filter] and [causal]": td.Filter, "[blank]": td.Blank,
    "[average]": td.Averaging, "[trigger]": td.Trigger, "[[derivation]]": td.Derivation, "[[marker]]": td.MarkerRule,
    "[[measure]]": td.MeasureRule, "[shape.NAME]": td.WaveShape, "[presence]": td.Presence, "[alarm]": td.AlarmRule,
    "[stimulus]": td.Stimulus, "[emg]": td.FreeEmg, "[threshold]": td.ThresholdSearch,
}  # fmt: skip


def rows(heading):
    body = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in body.splitlines() if line.startswith("| `")]
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
    return {c[0].strip("`"): c[1:] for c in cells}


def shown(field):
    default = field.default
    if default is msgspec.NODEFAULT:
        if field.default_factory is msgspec.NODEFAULT:
            return "required"
        default = field.default_factory()
    if default is None:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, str):
        return f'`"{default}"`'
    if isinstance(default, (tuple, list)):
        return "`[" + ", ".join(map(str, default)) + "]`"
    return f"`{default}`"


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_is_there_with_its_default_and_nothing_else(heading):
    fields = {f.encode_name: f for f in msgspec.structs.fields(TABLES[heading])}
    table = rows(heading)
    assert set(table) == set(fields)
    for name, (meaning, _, default, example) in table.items():
        assert meaning and default == shown(fields[name]), name
        kind = msgspec.defstruct("Example", [("value", fields[name].type)])
        msgspec.toml.decode(f"value = {example.strip('`')}", type=kind)


def test_every_table_of_a_test_file_has_its_heading():
    known = {h.split()[0].strip("[]").split(".")[0] for h in TABLES} | {"causal", "channels"}
    assert known == {f.encode_name for f in msgspec.structs.fields(td.TestDefinition)}


def test_the_whole_file_loads(tmp_path):
    text = PAGE.split("## A whole file\n```toml\n", 1)[1].split("```", 1)[0]
    (tmp_path / "whole.toml").write_text(text)
    assert load_test(tmp_path / "whole.toml").test.id == "animal_abr"
