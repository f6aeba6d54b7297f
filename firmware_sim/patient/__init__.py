"""The simulated patient: `Patient(scenario, seed)`."""

from firmware_sim.patient.patient import Patient
from firmware_sim.scenario import DeviceFault

__all__ = ["DeviceFault", "Patient"]
