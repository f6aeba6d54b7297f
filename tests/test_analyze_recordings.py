"""The estimators on real recordings (docs/accuracy.md); `make accuracy` runs them in full."""

import os

import pytest

from bench import accuracy
from tests.data_dir import data_dir


@pytest.fixture(autouse=True)
def recordings(monkeypatch):
    monkeypatch.setenv("IONMD_DATA", os.fspath(data_dir()))


@pytest.mark.parametrize("name", ["epl-abr", "epl-cap", "sphara", "earndb", "mep", "monstim", "emgdb"])
def test_recording_reaches(name):
    row = accuracy.ROWS[name]()
    assert row.ok, f"{row.asked}: {row.measured}"


def test_real_noise_without_a_response_is_never_present_and_intervals_hold():
    row = accuracy.real_ssep(20)
    assert "present 0 of 20" in row.measured
    assert accuracy.weighting(6).ok
