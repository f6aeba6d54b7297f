"""Driver names -> classes, imported when asked for: a missing vendor library hurts only its own driver.

Outsiders register under the entry point group `ionmd.drivers`; a built-in name cannot be replaced.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from ionmd.drivers.base import Amplifier
from ionmd.errors import ConfigError

GROUP = "ionmd.drivers"
AMPLIFIERS = {
    "ionm1": "ionmd.drivers.ionm1:Ionm1",
    "replay": "ionmd.drivers.replay:Replay",
    "demo": "ionmd.drivers.demo:Demo",
}


def known() -> dict[str, str]:
    """Every driver that is registered: name -> module:Class."""
    return {ep.name: ep.value for ep in entry_points(group=GROUP)} | AMPLIFIERS


def amplifier_class(name: str) -> type[Amplifier]:
    """The class of this name.  Raises ConfigError when it is unknown or cannot be imported."""
    where = known().get(name)
    if where is None:
        raise ConfigError(f"driver {name!r} came; known are {', '.join(sorted(known()))}")
    module, _, attribute = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"driver {name!r} ({where}) cannot be loaded: {exc}") from exc
    if not (isinstance(found, type) and issubclass(found, Amplifier)):
        raise ConfigError(f"driver {name!r}: {where} is no Amplifier")
    return found
