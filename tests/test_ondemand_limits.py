"""The ceilings of the cart: the daemon refuses more, and 0 is off, not without a limit."""

from rig import RATE, CaseRun, opening
from test_ondemand_case import TES

from ionmd.agenda import Step
from ionmd.config import Config, Limits
from ionmd.stim.outputs import device_config
from ionmd.testdef import OutputDef, Template, TemplateHead

PROBE = {"output": "probe", "site": "root", "amplitude_ma": 2.0, "width_us": 200, "lease": "script"}


def refused(tmp_path, limits: Limits, *steps: tuple[str, dict]) -> list[tuple[str, str]]:
    agenda = opening() + [Step(RATE // 2 * (1 + k), method, params) for k, (method, params) in enumerate(steps)]
    return CaseRun(tmp_path, "quiet", agenda, 3.0, limits=limits).run().refusals()


def test_more_than_the_carts_ceiling_is_refused_before_it_reaches_the_device(tmp_path):
    less = {**TES, "amplitude_v": 250.0}
    found = refused(tmp_path, Limits(transcranial_v=250.0), ("stim.arm", TES), ("stim.arm", less))
    assert len(found) == 1 and "300" in found[0][1] and "250" in found[0][1]


def test_a_ceiling_of_zero_switches_the_output_off(tmp_path):
    found = refused(tmp_path, Limits(probe_ma=0.0), ("stim.arm", PROBE), ("stim.arm", TES))
    assert len(found) == 1 and "switched off" in found[0][1] and "limits" in found[0][1]


def test_the_device_does_not_get_an_output_that_is_off():
    head = TemplateHead("t")
    template = Template(head, [], [OutputDef("p", 0, "probe", "x"), OutputDef("t", 1, "transcranial", "y")], [])
    off, on = device_config(Config(limits=Limits(probe_ma=0.0, transcranial_v=400.0)), template).outputs
    assert off.kind == 0 and (on.kind, on.max_amplitude) == (2, 400_000)
