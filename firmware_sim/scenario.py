"""A scenario file -> Scenario: who lies on the table, what happens to them and to the cart, and when.

In: a TOML file or the name of one that ships (`demo`).  Out: a frozen Scenario, every value checked.
Always: an unknown key, a wrong type, NaN, a negative time or an electrode that does not exist is a
ConfigError that names file, key, what came and what was expected.  Times are device seconds (`at_s`) or device
samples (`at_sample`), exactly one of them; `sample` turns them into samples of the rate in force.
Every key is documented in docs/scenarios.md; what can happen: events.py; ranges: scenario_check.py.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from firmware_sim import scenario_check
from firmware_sim.events import NERVES, Event, due
from ionmd.errors import ConfigError

SHIPPED = Path(__file__).with_name("scenarios")
MOST_BYTES = 1 << 20


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass



class Device(_Strict, kw_only=True):
    """The simulated unit; a command line option may override each of these."""

    inputs: int = 32
    rate_hz: int = 10_000
    block_samples: int = 0  # 0: the firmware's default for the rate
    serial: str = "SIM-0001"
    ppm: float = 0.0  # clock error against wall time
    outputs: list[str] = msgspec.field(default_factory=lambda: [*NERVES, "tes", "probe"])


class Body(_Strict, kw_only=True):
    """The patient.  Amplitudes are those of a supramaximal stimulus in an undisturbed patient."""

    source: Literal["model", "recordings"] = "model"
    height_cm: float = 172.0
    temperature_c: float = 36.5
    median_cortical_uv: float = 2.6  # N20-P23, CPc-Fpz
    tibial_cortical_uv: float = 2.2  # P37-N45, CPz-CPc
    cervical_uv: float = 2.0  # N13 at C5S
    plexus_uv: float = 4.0  # N9 at Erb's point
    popliteal_uv: float = 3.0  # N8
    mep_uv: float = 900.0  # supramaximal peak to peak of APB; the other muscles follow it
    sweep_cv: float = 0.08  # coefficient of variation of a single cortical response
    mep_cv: float = 0.40  # of single MEPs; each muscle has its own, 0.8 to 1.25 times this
    drift: float = 0.04  # slow wandering of amplitudes, one standard deviation
    sep_fade_per_hour: float = 0.03
    mep_fade_per_hour: float = 0.08
    relaxant: float = 0.15  # fraction of receptors blocked, before any bolus
    probe_threshold_ma: float = 9.5  # 100 uV in the first muscle, 200 us
    probe_muscles: list[str] = msgspec.field(default_factory=lambda: ["DELT-R", "APB-R"])
    probe_contact: bool = False


class Noise(_Strict, kw_only=True):
    """Levels of one input, rms at 30-500 Hz (EEG, EMG) or over the whole band (amplifier)."""

    eeg_uv: float = 1.2
    frontal_uv: float = 1.9  # Fpz: eyes and frontal muscle
    limb_uv: float = 1.5
    emg_uv: float = 2.0
    amplifier_uv: float = 0.35
    mains_uv: float = 1.5
    mains_hz: float = 50.0
    ecg_uv: float = 15.0
    offset_mv: float = 8.0
    artefact: float = 1.0  # factor on the stimulus artefact


class Electrode(_Strict, kw_only=True):
    """What differs from the standing facts at one electrode."""

    label: str
    kind: Literal["corkscrew", "needle", "disc"] | None = None
    impedance_kohm: float | None = None
    noise: float = 1.0  # factor on this electrode's own noise


class Head(_Strict, kw_only=True):
    name: str
    title: str = ""  # one line, shown by `ionmd-sim --list`
    seed: int = 1
    duration_s: float = 600.0
    template: str = "cervical"


class Step(_Strict, kw_only=True):
    """What the technologist does: a request to the daemon, sent when the device reaches that time."""

    method: str
    at_s: float | None = None
    at_sample: int | None = None
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    note: str = ""

    def sample(self, rate_hz: float) -> int:
        """The device sample at which it is due."""
        return due(self.at_s, self.at_sample, rate_hz)


class Scenario(
    _Strict, kw_only=True, rename={"events": "event", "operator_steps": "operator", "electrodes": "electrode"}
):
    scenario: Head
    device: Device = msgspec.field(default_factory=Device)
    patient: Body = msgspec.field(default_factory=Body)
    noise: Noise = msgspec.field(default_factory=Noise)
    electrodes: list[Electrode] = msgspec.field(default_factory=list)
    events: list[Event] = msgspec.field(default_factory=list)
    operator_steps: list[Step] = msgspec.field(default_factory=list)

    @property
    def name(self) -> str:
        return self.scenario.name


def available() -> list[str]:
    """Names of the scenarios that ship."""
    return sorted(p.stem for p in SHIPPED.glob("*.toml"))


def load(name_or_path: str | Path) -> Scenario:
    """The scenario of that name, or in that file.  Raises ConfigError naming file, key and what was expected."""
    text = str(name_or_path)
    path = Path(text)
    if path.suffix != ".toml" and "/" not in text:
        path = SHIPPED / f"{text}.toml"
        if text not in available():
            raise ConfigError(
                f"scenario {text!r} is not known; expected one of {', '.join(available())} or a .toml file"
            )
    try:
        with path.open("rb") as f:
            raw = f.read(MOST_BYTES + 1)
    except (OSError, ValueError) as e:  # ValueError: a path with a null byte
        reason = getattr(e, "strerror", None) or e
        raise ConfigError(f"{text}: cannot be read ({reason}); give a scenario's name or a readable file") from None
    return parse(raw, str(path))


def parse(raw: bytes | str, where: str = "scenario") -> Scenario:
    """`where` is what errors call the file."""
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{where}: more than {MOST_BYTES} bytes; expected a scenario file")
    try:
        data = tomllib.loads(raw.decode("utf-8") if isinstance(raw, bytes) else raw)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where}: not valid TOML: {e}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid TOML: nested too deep") from None
    scenario_check.numbers(data, where)
    try:
        scenario = msgspec.convert(data, Scenario)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{where}: {_readable(str(e), data)}") from None
    scenario_check.meaning(scenario, where)
    return scenario


def _readable(message: str, data: dict[str, Any]) -> str:
    """msgspec puts the place last, as a path from `$`, and does not say what came; we put place and value first."""
    text, sep, place = message.rpartition(" - at `$")
    place = place.strip("`").lstrip(".")
    if not sep or not place:
        return text or message
    came: Any = data
    for part in place.replace("[", ".[").split("."):
        try:
            came = came[int(part[1:-1])] if part.startswith("[") else came[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return f"{place}: {text}"
    return f"{place} is {came!r}: {text}" if not isinstance(came, (dict, list)) else f"{place}: {text}"
