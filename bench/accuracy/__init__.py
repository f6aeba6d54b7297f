"""Estimators against real recordings and simulations: `python -m bench.accuracy [--json] [ROW...]`.

Recordings are read from $IONMD_DATA (default ../shared/data); each row says what was asked, what was measured and
whether it was met.  The same functions serve the tests with smaller counts.  docs/accuracy.md keeps the printed table.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.accuracy.auditory import baep, earndb, epl_abr, epl_abr_asked, epl_cap
from bench.accuracy.emg import emgdb, uci
from bench.accuracy.mains import mains
from bench.accuracy.median import coverage, real_ssep, sphara, unseen, weighting
from bench.accuracy.muscle import mep_artefact, monstim
from bench.accuracy.row import Row
from bench.accuracy.tibial import tibial

ROWS: dict[str, Callable[[], Row]] = {
    "epl-abr-asked": epl_abr_asked, "epl-abr": epl_abr, "epl-cap": epl_cap, "earndb": earndb, "sphara": sphara,
    "ssep": real_ssep, "unseen": unseen,
    "coverage": coverage, "weighting": weighting, "mep": mep_artefact, "monstim": monstim, "emgdb": emgdb, "uci": uci,
    "baep": baep, "tibial": tibial, "mains": mains,
}  # fmt: skip
