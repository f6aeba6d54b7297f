"""The simulated patient: `Patient(scenario, seed)`."""

from firmware_sim.events import DeviceFault
from firmware_sim.patient.patient import Patient

__all__ = ["DeviceFault", "Patient"]
