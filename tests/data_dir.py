"""Where the real recordings are: $IONMD_DATA, default ../shared/data; without them skipped, in CI failed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def data_dir() -> Path:
    """The directory of recordings."""
    path = Path(os.environ.get("IONMD_DATA") or Path(__file__).parents[2] / "shared" / "data").resolve()
    if path.is_dir():
        return path
    reason = f"no recordings at {path}: set IONMD_DATA to the directory that holds them"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
