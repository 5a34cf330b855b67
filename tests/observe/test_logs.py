"""What a log line looks like, and where it goes."""

from __future__ import annotations

import io
import json
import logging

import pytest

from kbroker.observe import logs


@pytest.fixture(autouse=True)
def _outlet_stays(monkeypatch):
    monkeypatch.setattr(logs, "_outlet", logs.to_logging)
    monkeypatch.setattr(logs, "_now", lambda: "2026-11-24T08:00:00.000Z")


def lines_of(style="text", level="info"):
    stream = io.StringIO()
    logs.to_stderr(style=style, level=level, stream=stream)
    return stream


def test_a_line_names_the_event_and_its_fields():
    stream = lines_of()

    logs.get_logger("replication").info("leader changed", partition="orders-0", leader=3, was=None)

    expected = (
        "2026-11-24T08:00:00.000Z info    replication: leader changed partition=orders-0 leader=3 was=None\n"
    )
    assert expected == stream.getvalue()


def test_a_value_cannot_begin_a_line_of_its_own():
    stream = lines_of()

    logs.get_logger("net").warning("closed", client_id='x\n2026 error disk: lost="all"')

    assert 'client_id="x\\n2026 error disk: lost=\\"all\\""\n' in stream.getvalue()
    assert 1 == stream.getvalue().count("\n")


def test_json_lines_are_one_object_each():
    stream = lines_of("json")

    logs.get_logger("storage").bind(directory="/data").error("fsync failed", errno=5, level="mine")

    expected = {
        "time": "2026-11-24T08:00:00.000Z",
        "level": "error",
        "room": "storage",
        "event": "fsync failed",
        "directory": "/data",
        "errno": 5,
    }
    assert expected == json.loads(stream.getvalue())


def test_lines_below_the_level_are_dropped():
    stream = lines_of(level="warning")

    logs.get_logger("net").info("accepted")

    assert "" == stream.getvalue()


def test_an_exception_brings_its_traceback():
    stream = lines_of()

    try:
        raise AssertionError("flushed <= end")
    except AssertionError:
        logs.get_logger("storage").exception("partition stopped", partition="t-0")

    assert "storage: partition stopped partition=t-0\nTraceback" in stream.getvalue()
    assert stream.getvalue().endswith("AssertionError: flushed <= end\n")


def test_a_closed_stderr_stops_nothing():
    stream = lines_of()
    stream.close()

    logs.get_logger("net").info("accepted")


def test_an_embedded_broker_logs_to_pythons_logging(caplog):
    with caplog.at_level(logging.INFO, logger="kbroker"):
        logs.get_logger("cluster").info("topic created", topic="a b")

    assert [("kbroker.cluster", logging.INFO, 'topic created topic="a b"')] == caplog.record_tuples


def test_a_room_has_a_level_of_its_own_until_it_is_taken_back():
    stream = lines_of(level="warning")
    room = logs.get_logger("storage")

    logs.set_level("storage", "DEBUG")
    room.debug("first")
    logs.get_logger("server").info("not this")
    logs.set_level("storage", None)
    room.debug("nor this")
    logs.set_level(logs.ROOT, "INFO")
    room.info("last")

    assert ["first", "last"] == [line.split()[-1] for line in stream.getvalue().splitlines()]
    assert {"root": "INFO", "storage": "INFO"}.items() <= logs.levels().items()
    with pytest.raises(KeyError):
        logs.set_level("no such room", "INFO")


def test_pythons_logging_has_levels_of_its_own():
    logs.get_logger("storage")

    try:
        logs.set_level("storage", "ERROR")

        assert "ERROR" == logs.levels()["storage"]
        assert not logging.getLogger("kbroker.storage").isEnabledFor(logging.WARNING)
    finally:
        # logging remembers its answers; setting the level makes it forget them
        logs.set_level("storage", None)
