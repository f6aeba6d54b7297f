"""`ionmd replay` and `ionmd analyze`: recordings and averaged waveforms, without a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ionmd.cli.common import CASE_ID, as_json, clean, of_the_service, places, show_json, state_path
from ionmd.cli.draw import lines
from ionmd.errors import ConfigError

if TYPE_CHECKING:
    from ionmd.testdef import TestDefinition

RESULTS = ("average", "reading", "alarm")


def chosen_test(test: str | None, test_file: str | None) -> TestDefinition:
    """--test or --test-file: exactly one of them."""
    from ionmd import catalog

    if test and test_file:
        raise click.UsageError("--test and --test-file came together; give one of them")
    if test_file:
        return catalog.load_test(Path(test_file))
    if not test:
        raise click.UsageError("--test ID or --test-file F was expected; `ionmd tests list` shows the catalogue's")
    return catalog.resolve_test(test)


def recording_path(name: str, state_dir: str | None) -> Path:
    """A file or directory of this name, else the case of this id.  Raises ConfigError."""
    path = Path(name)
    try:
        if path.exists():
            return path
        case = state_path(state_dir) / "cases" / name
        if CASE_ID.fullmatch(name) and case.is_dir():
            return case
    except OSError as error:
        raise ConfigError(f"{name} came; {error.filename}: {error.strerror}") from error
    raise ConfigError(f"{name} came; an existing recording or the id of a case in {state_path(state_dir)} was expected"
                      + of_the_service(state_dir))  # fmt: skip


def _of(module: str, name: str) -> Any:
    """Imported when it is used: numpy and the kernels are not needed for a usage error."""
    import importlib

    return getattr(importlib.import_module(module), name)


@click.command()
@click.argument("recording", metavar="FILE|CASE")
@click.option("--test", metavar="ID", help="A test of the catalogue; for a file.")
@click.option("--test-file", metavar="F", help="A test file; for a file.")
@click.option("--json", "as_json", is_flag=True, help="NDJSON of average, reading and alarm.")
@places
def replay(recording: str, test: str | None, test_file: str | None, as_json: bool, state_dir: str | None,
           **_: object) -> None:  # fmt: skip
    """A recording, or a stored case with its own tests and requests, through the same pipeline as fast as it goes.

    Of a case it says whether the results are those that were recorded; exit code 1 when they differ."""
    path = recording_path(recording, state_dir)
    if path.is_dir():
        if test or test_file:
            raise click.UsageError(
                f"a case came with {'--test' if test else '--test-file'}; a case is replayed with the tests it was "
                f"recorded with (one of its files, {path / 'raw-0001.bdf'}, can be replayed with another test)"
            )
        found = _of("ionmd.replay.case", "replay_case")(path)
    else:
        found = _of("ionmd.replay.file", "replay_file")(path, chosen_test(test, test_file))
    outcome: dict[str, Any] | None = None
    for topic, data, sample in found:
        plain = msgspec.to_builtins(data)
        if topic == "replay":
            outcome = plain
        if as_json:
            show_json({"topic": topic, "sample": sample, "data": plain})
        elif topic in RESULTS:
            for line in lines(topic, plain):
                click.echo(line)
    if outcome is not None:
        tell_outcome(outcome)


def tell_outcome(outcome: dict[str, Any]) -> None:
    """The verdict on stderr; SystemExit(1) when the replay differs from the record."""
    name, count = clean(outcome["case_id"]), outcome["results"]
    for note in outcome.get("notes", []):
        click.echo(f"{name}: {clean(note)}", err=True)
    if outcome["same"]:
        click.echo(f"{name}: {count} results, the same as recorded, up to sample {outcome['until_sample']}", err=True)
        return
    click.echo(f"{name}: differs from the record ({count} results are the same); first difference: "
               f"{clean(outcome['difference'])}", err=True)  # fmt: skip
    raise SystemExit(1)


@click.command()
@click.argument("file")
@click.option("--test", metavar="ID", help="A test of the catalogue.")
@click.option("--test-file", metavar="F", help="A test file.")
@as_json
@places
def analyze(file: str, test: str | None, test_file: str | None, as_json: bool, **_: object) -> None:
    """Markers on averaged waveforms: CSV with time_ms first, then one column in uV per waveform."""
    run = _of("ionmd.analyze", "analyze")
    if not Path(file).is_file():
        raise ConfigError(f"{file} came; an existing CSV file was expected")
    result: Any = msgspec.to_builtins(run(Path(file), chosen_test(test, test_file)))
    if as_json:
        show_json(result)
        return
    for wave in result["waveforms"]:
        marks = ", ".join(f"{clean(m['label'])} {m['latency_ms']:.2f} ms ({clean(m['status'])})"
                          for m in wave["markers"] if m.get("latency_ms") is not None)  # fmt: skip
        sizes = ", ".join(f"{clean(m['label'])} {m['amplitude_uv']:.3f} uV" for m in wave["measures"]
                          if m.get("amplitude_uv") is not None)  # fmt: skip
        bursts = ", ".join(f"{b['start_ms'] / 1e3:.2f}-{b['stop_ms'] / 1e3:.2f} s" for b in wave.get("bursts", []))
        parts = (f"{clean(wave['name'])}: {clean(wave['status'])}", marks, sizes, bursts and f"bursts {bursts}")
        click.echo("; ".join(p for p in parts if p))
    if result.get("note"):
        click.echo(f"note: {clean(result['note'])}", err=True)
