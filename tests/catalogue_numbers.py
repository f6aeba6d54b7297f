"""The numbers of the catalogue's tests, flat: `marker N20.window_ms` -> `[16.5, 25.0]`."""

import tomllib
from pathlib import Path

TESTS = Path(__file__).parents[1] / "ionmd" / "catalog" / "tests"
SECTIONS = {
    "ssep-median": ("ssep_median_left", "ssep_median_right"), "ssep-tibial": ("ssep_tibial_left", "ssep_tibial_right"),
    "mep-tes": ("mep_tes",), "tof": ("tof",), "temg-probe": ("temg_probe",), "emg-free": ("emg_free",),
    "baep": ("baep_left", "baep_right"), "vep": ("vep_flash",),
}  # fmt: skip


def is_number(value):
    if isinstance(value, list):
        return bool(value) and all(is_number(v) for v in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def numbers(name):
    """Key -> value as written in Python; of markers with one label and different muscles the key has them."""
    raw = tomllib.loads((TESTS / f"{name}.toml").read_text(encoding="utf-8"))
    found = {}
    for table, content in raw.items():
        for row in content if isinstance(content, list) else [content]:
            where = f"{table} {row['label']}" if table in ("marker", "measure") else table
            place = row.get("derivations") or []
            if table in ("marker", "measure") and sum(r["label"] == row["label"] for r in content) > 1:
                where += f" ({place[0]} ...)"
            found |= {f"{where}.{key}": str(value) for key, value in row.items() if is_number(value)}
    return found
