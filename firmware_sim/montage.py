"""Where the electrodes are: the layout of the inputs, what region each belongs to, what kind it is.

The labels are those of `electrode.label` and `event.electrodes` in a scenario, and of GET_INPUTS on the wire.
"""

from __future__ import annotations

LAYOUT = (
    "Fpz", "CP3", "CP4", "CPz", "Cz", "C5S", "EPL", "EPR", "PFL+", "PFL-", "PFR+", "PFR-",
    "DELT-L+", "DELT-L-", "DELT-R+", "DELT-R-", "APB-L+", "APB-L-", "APB-R+", "APB-R-",
    "TA-L+", "TA-L-", "TA-R+", "TA-R-", "AH-L+", "AH-L-", "AH-R+", "AH-R-",
)  # fmt: skip

# Ohm against the others, kohm: corkscrews at most 2, needles at most 5-7, discs below 5, after the slow wandering
# of +-6 % (Patient.impedance).  Spare inputs are terminated in the headbox.
IMPEDANCE_KOHM = {"corkscrew": (0.5, 1.85), "needle": (1.5, 5.0), "disc": (1.5, 4.6), "terminated": (2.0, 2.0)}
_KIND = {"frontal": "corkscrew", "scalp": "corkscrew", "neck": "disc", "limb": "disc", "muscle": "needle"}


def labels(inputs: int) -> tuple[str, ...]:
    """Electrode labels of an amplifier of that many inputs; inputs beyond the layout are spare."""
    return tuple(LAYOUT[i] if i < len(LAYOUT) else f"X{i}" for i in range(inputs))


def region(label: str) -> str:
    """scalp, frontal, neck, limb, muscle or spare: decides noise and artefact of an electrode."""
    if label == "Fpz":
        return "frontal"
    if label in ("CP3", "CP4", "CPz", "Cz"):
        return "scalp"
    if label == "C5S":
        return "neck"
    if label.startswith(("EP", "PF")):
        return "limb"
    return "spare" if label.startswith("X") else "muscle"


def kind(label: str) -> str:
    """corkscrew, needle, disc, or terminated for a spare input."""
    return _KIND.get(region(label), "terminated")
