"""docs/record.md says what is: its commands check a journal, its tables name every kind of line and every column."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rig import SCENARIOS, CaseRun, opening

from ionmd.agenda import Step
from ionmd.case.index_tables import SCHEMA
from ionmd.case.journal import read_lines

DOC = (Path(__file__).parents[1] / "docs" / "record.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"```sh\n(.*?)```", DOC, re.S)


@pytest.fixture(scope="module")
def case_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven seconds with the cable out and in."""
    agenda = [
        *opening("c1"),
        Step(2200, "impedance.measure", {}),
        Step(6000, "test.start", {"tests": ["ssep_median_left"], "lease": "script"}),
        Step(60_000, "event.add", {"kind": "comment", "text": "the cable was out, naïve µ \" quote\\"}),
        Step(64_000, "test.start", {"tests": ["ssep_median_left"], "lease": "script"}),
        Step(105_000, "case.close", {}),
    ]
    run = CaseRun(tmp_path_factory.mktemp("docs"), SCENARIOS / "replay.toml", agenda, 11.0).run()
    return run.state_dir / "cases" / "c1"


def shell(script: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(["sh", "-c", script], cwd=cwd, env={"PATH": "/usr/bin:/bin", **env}, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def test_the_hash_of_every_line_is_what_sha256sum_prints(case_dir: Path) -> None:
    lines = list(read_lines(case_dir / "journal.jsonl"))
    for line in [*lines[:12], *lines[-4:], *[x for x in lines if x.kind in ("event", "average")]]:
        assert shell(SCRIPTS[0], case_dir, N=str(line.n)).split()[0] == line.hash


def test_the_chain_is_checked_by_the_second_command(case_dir: Path, tmp_path: Path) -> None:
    shutil.copy(case_dir / "journal.jsonl", tmp_path)
    assert shell(SCRIPTS[1], tmp_path) == ""
    text = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_text("".join(text[:5] + text[6:]))
    assert shell(SCRIPTS[1], tmp_path) != ""


def test_every_kind_of_line_is_documented(case_dir: Path) -> None:
    kinds = {line.kind for line in read_lines(case_dir / "journal.jsonl")}
    assert kinds >= {"block", "outside", "session", "audit", "asked", "request", "filter", "configuration", "raw"}
    named = {name for row in re.findall(r"^\| (`[a-z`, ]+) \|", DOC, re.M) for name in re.findall(r"`([a-z]+)`", row)}
    assert kinds - named - {"raw"} == set()
    source = "\n".join(p.read_text() for p in (Path(__file__).parents[1] / "ionmd").rglob("*.py"))
    written = set(re.findall(r'bus\.(?:journal|emit)\(\s*"[a-z]+",[^\n]*?kind="([a-z]+)"', source))
    written |= set(re.findall(r'bus\.journal\(\s*"([a-z]+)"', source))
    assert written - named == set()


def test_every_table_and_column_of_the_index_is_documented() -> None:
    section = DOC[DOC.index("## index.sqlite") :]
    for table, columns in SCHEMA.items():
        assert f"`{table}`" in section, table
        for column in re.findall(r"(?:^|, )([a-z_]+)", columns):
            if table != "meta" and column not in ("n", "sample"):
                assert re.search(rf"\b{column}\b", section), f"{table}.{column}"
