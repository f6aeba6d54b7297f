"""The house plan as a test: a stage imports the ground and earlier stages, never a later one."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The order of docs/architecture.md; stages in one tuple do not know each other.
ORDER = [
    ("errors", "units", "model", "testdef", "events", "timers", "config", "log", "clock", "aligned", "__init__"),
    ("drivers",), ("decode",), ("dsp",), ("catalog", "modality", "stim"), ("alarm",), ("runner",), ("case", "service"),
    ("room",), ("pipeline", "commands"), ("streams", "metrics", "engine", "store", "agenda", "replay", "analyze"),
    ("daemon",), ("process",), ("client",), ("cli",), ("__main__",),
]
RANK = {name: i for i, names in enumerate(ORDER) for name in names}
# The lease and limits are pure; a driver hands bytes to its decoder, so drivers may import decode; the catalogue
# lends its rate rule from stim.
ALLOWED = {("drivers", "decode"), ("stim", "stim"), ("catalog", "stim"), ("pipeline", "room")}


def stage(path: Path) -> str:
    return path.relative_to(ROOT / "ionmd").parts[0].removesuffix(".py")


def our_imports(path: Path) -> list[str]:
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(n) for t in ast.walk(tree) if isinstance(t, ast.If) and "TYPE_CHECKING" in ast.unparse(t.test)
               for n in ast.walk(t)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "ionmd" else [f"ionmd.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        found += [n.split(".")[1] for n in names if n.startswith("ionmd.")]
    return found


def test_each_stage_imports_only_the_ground_and_earlier_stages():
    bad = []
    for path in sorted((ROOT / "ionmd").rglob("*.py")):
        here = stage(path)
        for name in our_imports(path):
            if name == here or (here, name) in ALLOWED or name not in RANK:
                continue
            same_level = RANK[name] == RANK[here] and RANK[name] > 0
            if RANK[name] > RANK[here] or (same_level and here != name):
                bad.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not bad


def test_every_folder_has_its_place_in_the_order():
    folders = {stage(p) for p in (ROOT / "ionmd").rglob("*.py")}
    assert folders <= set(RANK)


def test_only_the_command_line_and_the_demo_driver_know_the_simulator():
    bad = [
        str(p.relative_to(ROOT)) for p in (ROOT / "ionmd").rglob("*.py")
        if any(line.lstrip().startswith(("import firmware_sim", "from firmware_sim"))
               for line in p.read_text(encoding="utf-8").splitlines())
        and stage(p) != "cli" and p.name != "demo.py"
    ]
    assert not bad


def test_the_firmware_has_the_same_table_of_time_limits():
    from ionmd.timers import c_header

    assert (ROOT / "firmware_sim/firmware/timers.h").read_text(encoding="utf-8") == c_header()
