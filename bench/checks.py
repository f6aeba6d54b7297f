"""The kernels outside Python: one hash on every instruction set, counted instructions, sanitizers.

    python -m bench.checks hash          builds for every level this machine has, and compares (the tests do as well)
    python -m bench.checks aarch64       cross-compiles and runs under qemu-user
    python -m bench.checks instructions  callgrind against ext/check/instructions.json, within 2 %; --record writes it
    python -m bench.checks sanitize      ASan and UBSan build of the C parts under the kernel and decoder tests

What is missing is named with the command that installs it; then `hash` and `sanitize` fail, the others skip.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bench import isa

ROOT = Path(__file__).parents[1]
SOURCES = [
    *(f"ext/dsp/{x}.c" for x in ("iir", "sweep", "emg", "peaks", "match", "welch", "noise")),
    *(f"ext/dsp/{x}.c" for x in ("blend", "beta", "shape", "mains")),
    "ext/decode/unpack.c", "ext/check/kernels_check.c",
]  # fmt: skip
# setup.py's own; DSP_ONE_ISA builds one version for -march instead of choosing at run time
FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"]
INCLUDES = ["-Iext/dsp", "-Iext/decode"]
HASHES = ROOT / "ext/check/hashes.txt"
COUNTS = ROOT / "ext/check/instructions.json"
KERNELS = ("unpack", "iir", "extremes", "sweep_add", "emg", "peaks", "match", "welch")
RUNS = (20, 120)  # counted twice: the difference is free of start-up
TOLERANCE = 0.02


def build(out: Path, march: str | None, compiler: str = "gcc", extra: tuple[str, ...] = ()) -> Path:
    """The check program; `march` None: with run-time dispatch, as the extension modules are."""
    one = ["-DDSP_ONE_ISA", f"-march={march}"] if march else []
    out.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, *FLAGS, *INCLUDES, *one, *extra, *SOURCES, "-lm", "-o", str(out)], cwd=ROOT, check=True)
    return out


def hashes(program: Path, runner: tuple[str, ...] = ()) -> str:
    done = subprocess.run([*runner, str(program), "hash"], capture_output=True, text=True, check=True)
    return done.stdout


def builds() -> list[str | None]:
    """Every clone that runs here, and the dispatching build."""
    here: list[str | None] = [None]
    if isa.cpu_flags() and os.uname().machine == "x86_64":
        here += [*isa.levels(), "x86-64"]
    return here


def verdict(name: str, got: str) -> bool:
    want = HASHES.read_text(encoding="ascii")
    if got == want:
        print(f"{name}: the same hash")
        return True
    pairs = zip(got.splitlines(), want.splitlines(), strict=False)
    wrong = [g.split()[0] for g, w in pairs if g != w] or ["the list of kernels"]
    print(f"{name}: differs in {', '.join(wrong)}")
    return False


def check_hash(folder: Path) -> bool:
    fine = True
    for march in builds():
        fine &= verdict(march or "dispatched", hashes(build(folder / f"check-{march or 'any'}", march)))
    return fine


def check_aarch64(folder: Path) -> bool:
    need = {"aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu", "qemu-aarch64": "qemu-user"}
    missing = [package for command, package in need.items() if not shutil.which(command)]
    if missing:
        names = " ".join(missing)
        print(f"aarch64: skipped, missing here: {names}; install with make deps CROSS=1 (apt-get install {names})")
        return True
    program = build(folder / "check-aarch64", None, "aarch64-linux-gnu-gcc", ("-static",))
    return verdict("aarch64 under qemu-user", hashes(program, ("qemu-aarch64",)))


def compiler_version() -> str:
    done = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True)
    return f"gcc {'.'.join(done.stdout.strip().split('.')[:2])}"


def instructions(program: Path, kernel: str) -> float:
    """Per channel-sample (per lag of a channel for match), exact and free of noise."""
    total = []
    for runs in RUNS:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, "count", kernel, str(runs)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
        if found is None:
            raise RuntimeError(f"callgrind said nothing about {kernel}: {done.stderr[-500:]}")
        total.append(int(found[1]))
        units = int(done.stdout)
    return (total[1] - total[0]) / (RUNS[1] - RUNS[0]) / units


def check_instructions(folder: Path, record: bool) -> bool:
    if not shutil.which("valgrind"):
        print("instructions: skipped, valgrind is missing: apt-get install valgrind")
        return True
    if "x86-64-v3" not in isa.levels():
        print("instructions: skipped, they were counted for x86-64-v3 (AVX2) and this machine has none")
        return True
    known = json.loads(COUNTS.read_text(encoding="ascii")) if COUNTS.exists() else {}
    compiler = compiler_version()
    if not record and compiler not in known:
        print(f"instructions: skipped, there are none for {compiler}, only for {', '.join(known)}; --record adds them")
        return True
    program = build(folder / "check-x86-64-v3", "x86-64-v3")
    counts = {k: round(instructions(program, k), 4) for k in KERNELS}
    if record:
        COUNTS.write_text(json.dumps({**known, compiler: counts}, indent=1) + "\n", encoding="ascii")
    fine = True
    for kernel, count in counts.items():
        was = known.get(compiler, counts)[kernel] if not record else count
        off = count / was - 1.0
        fine &= abs(off) <= TOLERANCE
        print(f"{kernel:<10}{count:>10.3f} instructions per channel-sample, {off:+.1%}"
              + ("" if abs(off) <= TOLERANCE else f": was {was}; look why, or --record"))  # fmt: skip
    return fine


def check_sanitize(folder: Path) -> bool:
    """A second build of the modules, never in place, and the tests on it."""
    asked = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    where = asked.stdout.strip()
    if not Path(where).is_absolute():
        print("sanitize: libasan is missing: it comes with gcc (apt-get install libgcc-12-dev)")
        return False
    lib = folder / "sanitize"
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-base", folder / "sanitize-temp", "--build-lib", lib],
        cwd=ROOT, env={**os.environ, "IONMD_SANITIZE": "1"}, check=True,
    )  # fmt: skip
    tests = sorted(str(p.relative_to(ROOT)) for pattern in ("test_dsp_*.py", "test_decode_*.py")
                   for p in (ROOT / "tests").glob(pattern))  # fmt: skip
    run = {
        **os.environ, "LD_PRELOAD": where, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": str(lib),
        "UBSAN_OPTIONS": "print_stacktrace=1", "IONMD_SANITIZED": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.remove(''); import pytest; sys.exit(pytest.main(sys.argv[1:]))",
         "-q", "-x", "-p", "no:cacheprovider", "-o", f"pythonpath={lib} tests", *tests],
        cwd=ROOT, env=run, check=False,
    )  # fmt: skip
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.checks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("check", choices=("hash", "aarch64", "instructions", "sanitize"))
    parser.add_argument("--record", action="store_true", help="instructions: write what was counted")
    args = parser.parse_args()
    folder = ROOT / "build" / "check"
    fine = {
        "hash": lambda: check_hash(folder),
        "aarch64": lambda: check_aarch64(folder),
        "instructions": lambda: check_instructions(folder, args.record),
        "sanitize": lambda: check_sanitize(folder),
    }[args.check]()
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
