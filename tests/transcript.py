"""Golden transcripts: what was said on the socket, line by line, in tests/transcripts/*.jsonl.

    {"#": "..."}        what this transcript shows
    {"to": 20000}       virtual time goes on to this case sample
    {">": {...}}        a request; as a string: a line that is no request
    {"<": {...}}        a line of the server, `normalised`

Virtual time and seeds make every line exact, but for the members of VOLATILE: their value is replaced by the one given
there, wherever they stand; `uid N` in a text becomes `uid 0`.  `LEASE`, `TOKEN` and `BOOT` in a request stand for what
the server said last.  Left out: the events `case {"committed"}`, which follow the disk; `seq` and `skipped` of case
events, which count them.

    python -m tests.transcript      says everything again to a daemon and rewrites the lines of the server
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "transcripts"
UTC = "2026-01-01T00:00:00.000000Z"
VOLATILE: dict[str, Any] = {
    "boot_id": "BOOT", "t_utc": UTC, "token": "TOKEN", "lease": "LEASE", "path": "PATH", "server": "ionmd", "n": 0,
    "snapshot": None, "rights": "", "uid": 0, "holder_uid": 0,
}
_GIVEN_BACK = ("boot_id", "token", "lease")

Line = dict[str, Any]


def load(name: str) -> list[Line]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def names() -> list[str]:
    return sorted(path.name for path in FOLDER.glob("*.jsonl"))


def normalised(message: Line) -> Line:
    """One line of the server without what differs between two runs."""
    plain: Line = _plain(message)
    if message.get("method") == "event" and message["params"]["topic"] == "case":
        plain["params"]["seq"] = 0
        plain["params"].pop("skipped", None)
    for part in (plain.get("result"), plain.get("error", {}).get("data")):
        if isinstance(part, dict) and "case" in part.get("seq", {}):
            part["seq"]["case"] = 0
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: VOLATILE[k] if k in VOLATILE and not _number(k, v) else _plain(v) for k, v in value.items()}
    if isinstance(value, str):
        return re.sub(r"\buid \d+", "uid 0", value)
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _number(key: str, value: Any) -> bool:
    """The device's own boot_id is a number, and exact."""
    return key == "boot_id" and isinstance(value, int)


def play(lines: list[Line], state_dir: Path) -> list[Line]:
    """Say the requests of a transcript to a daemon; the transcript as it is now."""
    from tests.daemon_rig import DaemonRig

    out = [line for line in lines if "#" in line]
    with DaemonRig(state_dir, "transcript") as rig:
        wire = rig.raw()
        out.append({"<": normalised(wire.hello)})
        said: Line = {}
        _remember(wire.hello, said)
        for line in lines:
            if "to" in line:
                rig.to(line["to"])
                wire.ask("stim.status", "barrier")
                out.append(line)
                out += _answer(wire, "barrier", said)[:-1]
            elif ">" in line:
                request = line[">"]
                text = request if isinstance(request, str) else json.dumps(_filled(request, said))
                wire.send(text.encode() + b"\n")
                out.append(line)
                out += _answer(wire, None if isinstance(request, str) else request["id"], said)
    return out


def _answer(wire: Any, id: Any, said: Line) -> list[Line]:
    """Lines up to the reply to `id`."""
    found = []
    while True:
        message = wire.line()
        assert message, "the daemon ended the connection"
        if message.get("method") != "event" or "committed" not in message["params"]["data"]:
            found.append({"<": normalised(message)})
        _remember(message, said)
        if "id" in message and message["id"] == id:
            return found


def _remember(value: Any, said: Line) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _GIVEN_BACK and isinstance(item, str):
                said[str(VOLATILE[key])] = item
            _remember(item, said)


def _filled(value: Any, said: Line) -> Any:
    if isinstance(value, dict):
        return {k: _filled(v, said) for k, v in value.items()}
    return said.get(value, value) if isinstance(value, str) else value


def as_text(lines: list[Line]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)


if __name__ == "__main__":
    for name in names():
        with tempfile.TemporaryDirectory() as directory:
            now = play(load(name), Path(directory))
        (FOLDER / name).write_text(as_text(now), encoding="utf-8")
        print(f"{name}: {len(now)} lines")
