"""Which instruction set the kernels run on here, and the targets that depend on it."""

from __future__ import annotations

from pathlib import Path

LEVELS = {  # GCC's own lists, as /proc/cpuinfo spells them
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "abm"},
    "x86-64-v2": {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"},
}
NAMES = {"x86-64-v4": "AVX-512", "x86-64-v3": "AVX2", "x86-64-v2": "baseline x86-64-v2", "": "no x86-64-v2"}


def cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    line = next((x for x in text.splitlines() if x.startswith("flags")), "")
    return set(line.partition(":")[2].split())


def levels() -> list[str]:
    """Levels this machine has, the highest first; empty where it is no x86-64."""
    flags, found = cpu_flags(), []
    for level in reversed(LEVELS):
        if not LEVELS[level] <= flags:
            break
        found.insert(0, level)
    return found


def level() -> str:
    """The clone that runs: the highest level, or "" below x86-64-v2."""
    return next(iter(levels()), "")


def target(v2: float, v3: float, v4: float) -> float:
    """The target for this machine."""
    return {"x86-64-v4": v4, "x86-64-v3": v3}.get(level(), v2)
