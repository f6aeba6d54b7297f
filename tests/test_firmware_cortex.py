"""The firmware is one for a microcontroller: it compiles for it, and asks nothing of a system."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "firmware_sim" / "firmware" / "check_cortex.sh"


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing: run `make deps`")
def test_every_firmware_file_compiles_for_two_cortex_cores_without_a_library():
    done = subprocess.run(["sh", str(SCRIPT)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(cortex-m\d): .* (\d+) bytes of code and tables, (\d+) bytes of state", done.stdout, re.M)
    assert [core for core, _, _ in found] == ["cortex-m4", "cortex-m7"]
    assert all(int(code) < 32_768 and int(state) < 131_072 for _, code, state in found)


def test_without_the_compiler_the_check_says_what_to_install(tmp_path):
    (tmp_path / "dirname").symlink_to(str(shutil.which("dirname")))
    done = subprocess.run(["/bin/sh", str(SCRIPT)], env={"PATH": str(tmp_path)}, capture_output=True, text=True,
                          timeout=20, check=False)  # fmt: skip
    assert done.returncode == 1 and "apt-get install" in done.stderr and "gcc-arm-none-eabi" in done.stderr
