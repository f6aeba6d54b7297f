"""docs/sources.md has every number of the catalogue, and whatever the code refers to is there."""

import re
from pathlib import Path

import pytest

from tests.catalogue_numbers import SECTIONS, TESTS, numbers

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
REFERENCE = re.compile(r"sources\.md#([A-Za-z0-9_-]+)")


def section(name):
    return PAGE.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0].split("\n# ", 1)[0]


def rows(name):
    lines = [line for line in section(name).splitlines() if line.startswith("| `")]
    return {c[0].strip("`"): c[1:] for c in ([x.strip() for x in line.split("|")[1:-1]] for line in lines)}


@pytest.mark.parametrize(("name", "test"), [(s, t) for s, tests in SECTIONS.items() for t in tests])
def test_every_number_of_a_test_has_its_value_source_and_trust(name, test):
    table = rows(name)
    own = numbers(test)
    if test.endswith("_right"):  # the same numbers, named by the other side's electrodes
        own = dict(zip(numbers(test.replace("_right", "_left")), own.values(), strict=True))
    assert {k: v[0].strip("`") for k, v in table.items()} == own
    assert all(source and trust for _, source, trust in table.values())


def test_every_test_of_the_catalogue_names_its_section():
    listed = {t for tests in SECTIONS.values() for t in tests}
    assert listed == {f.stem for f in TESTS.glob("*.toml")}
    for name, tests in SECTIONS.items():
        for test in tests:
            assert f"docs/sources.md#{name}\n" in (TESTS / f"{test}.toml").read_text(encoding="utf-8")


def test_every_reference_has_its_heading():
    headings = set(re.findall(r"^## ([a-z0-9-]+)$", PAGE, re.MULTILINE))
    missing = {}
    for folder, kinds in (("ionmd", ("py", "toml")), ("firmware_sim", ("py", "toml", "h", "c")), ("bench", ("py",)),
                          ("ext", ("pyx", "h", "c")), ("docs", ("md",))):  # fmt: skip
        for path in (p for kind in kinds for p in (ROOT / folder).rglob(f"*.{kind}")):
            for anchor in REFERENCE.findall(path.read_text(encoding="utf-8")):
                if anchor not in headings:
                    missing[f"{path.relative_to(ROOT)}"] = anchor
    assert not missing


def test_every_source_that_is_cited_is_listed():
    listed = set(re.findall(r"^\| (S\d+) \|", PAGE, re.MULTILINE))
    assert set(re.findall(r"\[(S\d+)\]", PAGE)) <= listed
