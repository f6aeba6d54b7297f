"""`describe` is the truth: one case in which every method is called, each answer and each event held against it."""

import copy

import pytest

from ionmd.service import describe
from ionmd.service.schema import METHODS, TOPICS
from tests import socket_case
from tests.json_schema import problems


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> socket_case.Case:
    return socket_case.run(tmp_path_factory.mktemp("state"))


def test_every_method_was_answered_and_every_topic_spoke_but_the_reserved_one(case):
    answered = {x.method for x in case.exchanges if "result" in x.reply}
    assert answered == set(METHODS)
    assert {e["params"]["topic"] for e in case.events} == set(TOPICS) - {socket_case.SILENT}


def test_every_kind_of_event_that_is_published_was_seen(case):
    """A type that nothing emits would be a promise that nobody keeps."""
    defs = case.description["$defs"]
    unseen = []
    for topic in set(TOPICS) - {socket_case.SILENT}:
        for kind in describe.TOPIC_DATA[topic]:
            schema = {"$ref": f"#/$defs/{kind.__name__}"}
            if not any(not problems(d, schema, {"$defs": defs}) for d in case.data(topic)):
                unseen.append(kind.__name__)
    # said elsewhere: a lost device (tests/test_drivers_ionm1.py); announced and repeated trains, refused probes and
    # muted EMG (tests/test_ondemand_case.py)
    assert set(unseen) <= {"DeviceStatus", "AboutToFire", "RepeatWanted", "NotDelivered", "EmgMuted"}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_each_answer_is_what_describe_says(case, method):
    schema = case.description["methods"][method]["result"]
    for exchange in case.exchanges:
        if exchange.method == method and "result" in exchange.reply:
            assert problems(exchange.reply["result"], schema, case.description) == []


@pytest.mark.parametrize("topic", TOPICS)
def test_each_event_is_what_describe_says(case, topic):
    schema = case.description["topics"][topic]["data"]
    found = [p for data in case.data(topic) for p in problems(data, schema, case.description)]
    assert found == []


def test_each_request_we_made_is_one_that_describe_allows(case):
    for exchange in case.exchanges:
        schema = case.description["methods"][exchange.method]["params"]
        assert problems(exchange.params, schema, case.description) == []


def test_hello_event_envelope_errors_and_layouts_are_what_describe_says(case):
    root = case.description
    assert problems(case.hello["params"], root["hello"], root) == []
    assert [p for e in case.events for p in problems(e["params"], root["event"], root)] == []
    errors = [x.reply["error"] for x in case.exchanges if "error" in x.reply]
    assert errors and [p for e in errors for p in problems(e, root["error"], root)] == []
    assert [x["kind"] for x in case.layouts] == ["raw", "filtered", "emg_audio"]
    assert [p for layout in case.layouts for p in problems(layout, root["stream_layout"], root)] == []


def test_seq_of_every_topic_has_no_hole_that_skipped_does_not_name(case):
    last: dict[str, int] = {}
    for event in case.events:
        p = event["params"]
        if p["topic"] in last:
            assert p["seq"] == last[p["topic"]] + 1 + p.get("skipped", 0)
        last[p["topic"]] = p["seq"]


def test_events_that_are_recorded_carry_their_journal_line_and_the_commit_follows(case):
    lines = [e["params"]["n"] for e in case.events if e["params"]["topic"] in ("alarm", "stim")]
    assert lines == sorted(lines) and all(n >= 1 for n in lines)
    committed = [d["committed"] for d in case.data("case") if "committed" in d]
    assert committed[-1] >= lines[-1]


def test_metrics_count_the_lost_samples_and_the_readers(case):
    first, last = case.data("metrics")[0], case.data("metrics")[-1]
    assert (first["rate_hz"], last["lost_samples"], last["subscribers"]) == (10_000.0, 40, 1)
    assert all(m["speed"] > 0.0 and m["rss_kib"] > 1000 for m in case.data("metrics"))


def test_an_answer_with_a_wrong_a_missing_or_a_new_member_would_be_found(case):
    """The validator itself: what it lets pass must have been looked at."""
    root, schema = case.description, case.description["methods"]["status"]["result"]
    page = case.reply("status")
    for spoil in (
        lambda p: p["device"].update(inputs="twenty"), lambda p: p.pop("sample"), lambda p: p.update(mood="good"),
        lambda p: p["stim"]["outputs"][0].pop("kind"), lambda p: p["tests"][0].update(state="maybe"),
        lambda p: p.update(case_id=7), lambda p: p["seq"].update(alarm="1"), lambda p: p.update(sample=True),
    ):
        spoiled = copy.deepcopy(page)
        spoil(spoiled)
        assert problems(spoiled, schema, root)
