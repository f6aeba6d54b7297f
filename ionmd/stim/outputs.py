"""What the device must be: the configured shape, and the outputs of the template's stimulator table.

In: the cart's configuration and a template.  Out: a DeviceConfig.  Always: an output's ceiling is the lowest of the
template's, the cart's and its kind's; the firmware holds its own against it once more.
"""

from __future__ import annotations

from ionmd.config import Config
from ionmd.drivers.base import DeviceConfig, OutputConfig
from ionmd.stim.limits import BY_NAME
from ionmd.testdef import Template


def ceilings_of(config: Config) -> dict[str, float]:
    """Kind of output -> the cart's ceiling, mA or V."""
    limits = config.limits
    return {"transcutaneous": limits.transcutaneous_ma, "transcranial": limits.transcranial_v, "probe": limits.probe_ma}


def device_config(config: Config, template: Template) -> DeviceConfig:
    """What the device must be: the configured shape, and the outputs of the template's stimulator table."""
    jacks = {o.jack: o for o in template.output}
    ceilings = ceilings_of(config)
    outputs = []
    for jack in range(max(jacks, default=-1) + 1):
        output = jacks.get(jack)
        if output is None or not (ceilings[output.kind] > 0.0):  # to the device a ceiling of 0 is none at all
            outputs.append(OutputConfig(0))
            continue
        ceiling = min(output.max_amplitude or ceilings[output.kind], ceilings[output.kind])
        kind = BY_NAME[output.kind].kind
        outputs.append(OutputConfig(kind, output.connection == "hand-held probe", round(ceiling * 1000)))
    d = config.device
    return DeviceConfig(d.inputs, d.rate_hz, d.block_samples, tuple(outputs))
