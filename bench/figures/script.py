"""A case that runs by itself: a scenario with its operator's steps, `ionmd run --simulate` over USB at full speed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import firmware_sim.scenarios

CASE = "bench"
ROOT = Path(__file__).parents[2]
SCENARIOS = Path(firmware_sim.scenarios.__file__).parent


@dataclass
class Script:
    """What the technologist does; sign-in, case and lease come first, the case is closed just before the end."""

    duration_s: float
    inputs: int = 8
    rate_hz: int = 10_000
    block_samples: int = 50
    template: str = "cervical"
    extra: str = ""  # more of the scenario, as TOML
    steps: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.at(0.2, "person.sign_in", name="Bench", credential="CNIM")
        self.at(0.4, "case.open", case_id=CASE, template=self.template)
        self.at(0.6, "stim.acquire")
        self.at(self.duration_s - 0.5, "case.close", reason="end")

    def at(self, seconds: float, method: str, **params: Any) -> Script:
        self.steps.append((seconds, method, params))
        return self

    def start(self, seconds: float, tests: Sequence[str]) -> Script:
        return self.at(seconds, "test.start", tests=list(tests), lease="script")

    def toml(self) -> str:
        """The steps and the shape of the unit; JSON strings, numbers and lists are TOML as they are."""
        shape = {"inputs": self.inputs, "rate_hz": self.rate_hz, "block_samples": self.block_samples}
        lines = ["[device]", *(f"{key} = {value}" for key, value in shape.items())]
        for seconds, method, params in self.steps:
            lines += ["[[operator]]", f"at_s = {seconds}", f"method = {json.dumps(method)}", "[operator.params]"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in params.items()]
        return "\n".join([*lines, self.extra, ""])


def cases(script: Script, scenario: str, seeds: Sequence[int]) -> Iterator[Path]:
    """The case directory of one run for each seed; it is gone when the next is asked for."""
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="ionmd-bench-") as directory:
            yield _run(script, scenario, seed, Path(directory))


def _run(script: Script, scenario: str, seed: int, directory: Path) -> Path:
    text = (SCENARIOS / f"{scenario}.toml").read_text()
    text = re.sub(r"(?ms)^\[device\].*?(?=^\[|\Z)", "", text)  # the script has its own unit
    text = re.sub(r"(?ms)^\[\[operator\]\].*?(?=^\[|\Z)", "", text)  # and its own technologist
    text = re.sub(r"(?m)^seed = .*$", f"seed = {seed}", text)
    file = directory / "scenario.toml"
    file.write_text(f"{text}\n{script.toml()}")
    options = {"simulate": file, "speed": "max", "duration": f"{script.duration_s:g}", "socket": directory / "s",
               "state-dir": directory / "state"}  # fmt: skip
    command = [sys.executable, "-m", "ionmd", "run", *(str(x) for k, v in options.items() for x in (f"--{k}", v))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False,
                          timeout=60 + 2 * script.duration_s)  # fmt: skip
    case = directory / "state" / "cases" / CASE
    if done.returncode or not case.is_dir():
        raise RuntimeError(f"{scenario}, seed {seed}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return case
