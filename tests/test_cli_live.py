"""Verbs that stay or read a whole page, over the socket of a real daemon beside the simulator."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ionmd.cli import main
from ionmd.client import Client
from ionmd.errors import DaemonUnreachable

ROOT = Path(__file__).parents[1]
SCENARIO = """
[scenario]
name = "live"
seed = 3
duration_s = 100000
[device]
inputs = 28
rate_hz = 2000
[patient]
probe_contact = true
probe_threshold_ma = 3.5
"""


class Live:
    """`ionmd run --simulate` and its clients."""

    def __init__(self, place: Path) -> None:
        self.socket, self.state = place / "s", place / "state"
        (place / "live.toml").write_text(SCENARIO)
        self.daemon = self.spawn("run", "--simulate", place / "live.toml", "--speed", "max", "--state-dir", self.state)
        try:
            line = self.daemon.stderr.readline()  # said when the socket answers
            assert "listens" in line, line + self.daemon.stderr.read()
            while not self.roles():  # they come with the simulated unit
                assert self.daemon.poll() is None
        except BaseException:
            self.daemon.terminate()
            raise

    def roles(self) -> list[str]:
        with Client(self.socket) as client:
            return list(client.hello.roles)

    def spawn(self, *arguments: object, **env: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "ionmd", *map(str, arguments), "--socket", str(self.socket)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "IONMD_LEASE": "", **env},
        )

    def run(self, *arguments: object, **env: str) -> subprocess.CompletedProcess:
        """A verb that answers and ends: in this process, over the same socket."""
        runner = CliRunner(env={"IONMD_LEASE": "", **env})
        done = runner.invoke(main, [*map(str, arguments), "--socket", str(self.socket)])
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    def ask(self, method: str, **params: object):
        with Client(self.socket) as client:
            return client.call(method, timeout_s=30.0, **params)

    def until(self, topic: str, wanted) -> dict:
        """The next event of a topic for which `wanted` is true."""
        with Client(self.socket) as client:
            client.subscribe(topic)
            return next(e.data for e in client.events(timeout_s=60.0) if wanted(e.data))


def end(child: subprocess.Popen) -> tuple[int, str, str]:
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err


@pytest.fixture(scope="module", autouse=True)
def interruptible():
    """A suite in the background of a shell has Ctrl-C ignored, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    running = Live(tmp_path_factory.mktemp("live"))
    assert running.run("case", "new", "--id", "c1").returncode == 0
    yield running
    code, _, err = end(running.daemon)
    assert code == 0, err


def holder(live: Live) -> str:
    return live.ask("stim.status").get("holder_person", "")


def test_attend_prints_its_lease_first_and_gives_it_back_on_ctrl_c(live):
    child = live.spawn("attend", "--as", "Kim", "--credential", "CNIM")
    lease = child.stdout.readline().strip()
    assert re.fullmatch(r"[0-9a-f]{16}", lease) and holder(live) == "Kim"
    assert live.run("start", "mep_tes", IONMD_LEASE=lease).returncode == 0
    code, out, err = end(child)
    assert (code, out) == (0, "") and "released" in err
    assert holder(live) == "" and live.ask("status").get("persons", []) == []
    assert live.run("stop").returncode == 0


def test_who_may_not_have_the_lease_has_not_attended_and_take_hands_it_over_without_a_stop(live):
    first = live.spawn("attend", "--as", "Kim")
    lease = first.stdout.readline().strip()
    assert live.run("start", "ssep_median_left", "--lease", lease).returncode == 0
    refused = live.run("attend", "--as", "Lee")
    assert refused.returncode == 4 and "held by Kim" in refused.stderr and "--take" in refused.stderr
    assert [p["name"] for p in live.ask("status")["persons"]] == ["Kim"]
    second = live.spawn("attend", "--as", "Lee", "--take")
    assert second.stdout.readline().strip() != lease and holder(live) == "Lee"
    assert live.ask("stim.status")["outputs"][0]["state"] == "stimulating"
    assert first.wait(30) == 4 and "Lee holds the stimulation lease now" in first.stderr.read()
    assert [p["name"] for p in live.ask("status")["persons"]] == ["Lee"]
    assert end(second)[0] == 0
    assert next(t for t in live.ask("status")["tests"] if t["test"] == "ssep_median_left")["reason"].startswith(
        "stimulation stopped"
    )
    assert live.run("stop").returncode == 0


def test_an_attendant_that_dies_takes_the_stimulation_along(live):
    child = live.spawn("attend", "--as", "Kim")
    lease = child.stdout.readline().strip()
    assert live.run("start", "ssep_median_left", "--lease", lease).returncode == 0
    with Client(live.socket) as client:
        client.subscribe("alarm")
        child.kill()
        child.wait(30)
        alarm = next(e.data for e in client.events(timeout_s=60.0) if e.data.get("code") == "stimulation.stopped")
    assert alarm["priority"] == "high" and alarm["sentence"].startswith("Not monitored: stimulation stopped")
    assert live.run("stop").returncode == 0
    assert live.ask("person.sign_out", name="Kim")["id"] == "Kim"


def test_start_without_a_lease_holds_one_in_the_foreground(live):
    child = live.spawn("start", "ssep_median_left", "emg_free", "--as", "Kim")
    assert child.stdout.readline().startswith("started ssep_median_left, emg_free")
    assert holder(live) == "Kim"
    live.until("reading", lambda d: d.get("test") == "ssep_median_left")
    code, _, err = end(child)
    assert code == 0 and "held here" in err and holder(live) == ""
    assert live.run("stop").returncode == 0


def test_start_of_a_test_that_does_not_stimulate_needs_no_lease_and_does_not_stay(live):
    assert live.run("start", "emg_free").stdout.startswith("started emg_free (journal line")
    assert live.run("stop", "emg_free").returncode == 0


def test_status_heads_each_test_with_the_age_of_its_last_valid_reading(live):
    child = live.spawn("start", "ssep_median_left", "--as", "Kim")
    child.stdout.readline()
    live.until(
        "reading", lambda d: d.get("test") == "ssep_median_left" and d["status"] == "present" and d["role"] == "alert"
    )
    page = live.run("status").stdout
    assert "\x1b" not in page  # colour is for terminals
    head = page.splitlines().index(next(x for x in page.splitlines() if x.startswith("TEST")))
    assert page.splitlines()[head].split()[:4] == ["TEST", "LAST", "VALID", "STATE"]
    rows = {line.split()[0]: line for line in page.splitlines()[head + 1 :] if line.strip()}
    assert re.search(r"ssep_median_left +\d+ (s|min) ago +running", rows["ssep_median_left"])
    assert re.search(r"tof +- +idle .*not monitored: test not running", rows["tof"])
    assert "attending   Kim" in page and "case        c1" in page and "record      " in page
    keys = json.loads(live.run("status", "--json").stdout)
    assert {"server", "source", "case_id", "sample", "rate_hz", "device", "stim", "tests"} <= set(keys)
    assert end(child)[0] == 0
    live.run("stop")


def said(live: Live, child: subprocess.Popen) -> str:
    """The next line of a watcher, while steps are entered; it may have subscribed late."""
    for _ in range(200):
        assert live.run("event", "step", "exposure").returncode == 0
        if select.select([child.stdout], [], [], 0.5)[0]:
            return child.stdout.readline()
    raise AssertionError("the watcher says nothing")


def test_watch_tells_a_story_and_with_topics_every_event(live):
    story, raw = live.spawn("watch"), live.spawn("watch", "case", "--json")
    assert re.fullmatch(r" *\d+\.\d s  step: exposure\n", said(live, story))
    event = json.loads(said(live, raw))
    assert event["topic"] == "case" and {"seq", "n", "boot_id", "sample", "t_utc", "data"} <= set(event)
    for child in (story, raw):
        code, _, err = end(child)
        assert "Traceback" not in err, (code, err)


def test_a_threshold_and_a_train_by_hand(live):
    child = live.spawn("attend", "--as", "Kim")
    lease = child.stdout.readline().strip()
    assert live.run("start", "temg_probe", "mep_tes", IONMD_LEASE=lease).returncode == 0
    found = live.run("threshold", "temg_probe", "--from", "2", "--to", "8", IONMD_LEASE=lease)
    assert found.returncode == 0 and re.search(r"temg_probe: [345] mA in DELT-R", found.stdout), found.stdout
    assert "200 us, cathodal, return needle in paraspinal muscle" in found.stdout
    tes = ("--output", "tes", "--site", "C3/C4", "--amplitude-v", 300, "--width-us", 75, "--polarity", "biphasic")
    wrong = live.run("stim", "arm", *tes, IONMD_LEASE=lease)
    assert wrong.returncode == 0 and "not a sweep of mep_tes: 1 pulses, the test has 5" in wrong.stderr
    armed = live.run("stim", "arm", *tes, "--count", 5, "--interval-ms", 2, IONMD_LEASE=lease)
    token = armed.stdout.strip()
    assert "warning" not in armed.stderr
    with Client(live.socket) as client:
        client.subscribe("reading")
        assert live.run("stim", "fire", token).stdout.startswith("fires at sample")
        muscles = {e.data["derivation"] for e, _ in zip(client.events(timeout_s=60.0), range(8), strict=False)}
    assert len(muscles) == 8
    assert live.run("stim", "off").returncode == 0
    assert live.run("stim", "fire", token).returncode == 4
    assert end(child)[0] == 0
    live.run("stop")


def test_the_daemon_gone_is_exit_code_3_for_who_watches(tmp_path):
    mine = Live(tmp_path)
    child = mine.spawn("watch", "metrics")
    with Client(mine.socket):  # the daemon serves
        pass
    assert end(mine.daemon)[0] == 0
    child.wait(60)
    assert child.returncode == 3 and "ionmd" in child.stderr.read()
    with pytest.raises(DaemonUnreachable):
        Client(mine.socket)
