"""The command line (design 6).  `main` is the whole of it; every verb is imported when it is used.

A line of VERBS: name -> (module:attribute, one sentence).  The help page needs no import of a verb.
"""

from __future__ import annotations

from ionmd.cli.group import LazyGroup

VERBS: dict[str, tuple[str, str]] = {
    "run": ("ionmd.cli.run:run", "Run the daemon."),
    "demo": ("ionmd.cli.demo:demo", "A simulated case from first sample to alarm, shown as it happens."),
    "status": ("ionmd.cli.status:status", "Device, case, tests, stimulator and alarms on one page."),
    "doctor": ("ionmd.cli.doctor:doctor", "What is missing on this machine, and the exact fix."),
    "watch": ("ionmd.cli.watch:watch", "Events as they happen."),
    "tests": ("ionmd.cli.catalogue:tests", "The tests of the catalogue."),
    "templates": ("ionmd.cli.catalogue:templates", "The surgery templates of the catalogue."),
    "attend": ("ionmd.cli.attend:attend", "Hold the stimulation lease until Ctrl-C."),
    "start": ("ionmd.cli.start:start", "Start tests."),
    "stop": ("ionmd.cli.start:stop", "Stop tests (all without names)."),
    "stim": ("ionmd.cli.stim:stim", "The stimulator: status, off, reset, arm, confirm, fire."),
    "threshold": ("ionmd.cli.measure:threshold", "Search a stimulation threshold."),
    "impedance": ("ionmd.cli.measure:impedance", "Measure electrode impedances."),
    "baseline": ("ionmd.cli.baseline:baseline", "Accept, list and choose baselines."),
    "marker": ("ionmd.cli.marker:marker", "Correct markers by hand."),
    "alarm": ("ionmd.cli.alarm:alarm", "List, acknowledge and pause alarms."),
    "case": ("ionmd.cli.case:case", "Cases and their records."),
    "note": ("ionmd.cli.notes:note", "A comment in the record."),
    "event": ("ionmd.cli.notes:event", "A surgical, anaesthetic or technical event."),
    "episode": ("ionmd.cli.notes:episode", "Who was told of a change, and what they did."),
    "replay": ("ionmd.cli.recordings:replay", "A recording through the same pipeline."),
    "analyze": ("ionmd.cli.recordings:analyze", "Markers on averaged waveforms."),
    "evaluate": ("ionmd.cli.evaluate:evaluate", "Many simulated cases: sensitivity, false alarms, time to alarm."),
}

main = LazyGroup(
    VERBS, name="ionmd",
    help="The open acquisition daemon of an intraoperative neuromonitoring cart, and its client.",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
