"""`ionmd threshold` and `ionmd impedance`: measurements that the device makes on request."""

from __future__ import annotations

import click

from ionmd.cli.common import as_json, ask, by, lease_id, number, places, show_json, table
from ionmd.cli.story import threshold_line

SEARCH_S = 600.0


@click.command()
@click.argument("test")
@click.option("--from", "start", type=number, metavar="X", help="In the unit of the output; default: the test's own.")
@click.option("--to", "stop", type=number, metavar="X")
@click.option("--step", type=number, metavar="X")
@click.option("--lease", metavar="ID", help="Default: $IONMD_LEASE.")
@by
@as_json
@places
def threshold(test: str, start: float | None, stop: float | None, step: float | None, lease: str | None, by: str,
              socket: str | None, as_json: bool, **_: object) -> None:  # fmt: skip
    """Rising deliveries of a running TEST until its muscles answer."""
    answer = ask(socket, "threshold.run", SEARCH_S, test=test, start=start, stop=stop, step=step,
                 lease=lease_id(lease), by=by)  # fmt: skip
    if as_json:
        show_json(answer)
        return
    click.echo(threshold_line(answer.get("result", answer)))


@click.command()
@click.argument("electrodes", nargs=-1, metavar="[ELECTRODE...]")
@by
@as_json
@places
def impedance(electrodes: tuple[str, ...], by: str, socket: str | None, as_json: bool, **_: object) -> None:
    """Impedances of ELECTRODEs; of all without names."""
    answer = ask(socket, "impedance.measure", 120.0, electrodes=list(electrodes), by=by)
    if as_json:
        show_json(answer)
        return
    rows = []
    for e in answer.get("electrodes", []):
        value = "open" if e.get("ohm") is None else f"{e['ohm'] / 1000:.1f} kohm"
        rows.append((e.get("label", ""), str(e.get("input", "")), value, "ok" if e.get("ok") else "too high",
                     ", ".join(e.get("takes_down", []))))  # fmt: skip
    table(rows, ("ELECTRODE", "INPUT", "IMPEDANCE", "", "DERIVATIONS"))
