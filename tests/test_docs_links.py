"""Every document that the code, the catalogue or another document points at is there, and so is the heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    p for folder in ("ionmd", "ext", "firmware_sim", "bench", "docs", "systemd")
    for p in sorted((ROOT / folder).rglob("*")) if p.suffix in {".py", ".pyx", ".c", ".h", ".md", ".toml", ".service"}
] + [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "setup.py", "pyproject.toml")]
POINTER = re.compile(r"\bdocs/[\w/.-]+\.md(?:#[\w-]+)?")
LINK = re.compile(r"\]\(([\w/.-]+\.md)(#[\w-]+)?\)")


def anchors(document: Path) -> set[str]:
    """Headings as a browser of the repository names them, and explicit anchors."""
    found = set()
    for line in document.read_text().splitlines():
        found |= set(re.findall(r'<a (?:id|name)="([\w-]+)"', line))
        if line.startswith("#"):
            words = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
            found.add(words.replace(" ", "-"))
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_pointer_into_the_documents_leads_somewhere(source):
    text = source.read_text()
    targets = [(ROOT / m.partition("#")[0], m.partition("#")[2]) for m in POINTER.findall(text)]
    if source.suffix == ".md":
        targets += [(source.parent / path, anchor.lstrip("#")) for path, anchor in LINK.findall(text)]
    missing = [
        f"{document.name}{'#' + anchor if anchor else ''}" for document, anchor in targets
        if not document.is_file() or (anchor and anchor not in anchors(document))
    ]
    assert missing == []
