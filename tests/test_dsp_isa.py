"""One output on every instruction set: the kernels as each clone of this machine, and the recorded hash."""

from __future__ import annotations

import os

import pytest

from bench import checks

pytestmark = pytest.mark.skipif(bool(os.environ.get("IONMD_SANITIZED")), reason="builds by itself, nothing to sanitize")


@pytest.mark.parametrize("march", [m for m in checks.builds() if m] or [None])
def test_the_kernels_give_the_recorded_hash_as(march, tmp_path):
    program = checks.build(tmp_path / "check", march)
    assert checks.hashes(program) == checks.HASHES.read_text(encoding="ascii")
