"""Kafka's own dump tool reads the groups and offsets that we write, field by field."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kbroker.cluster.names import GROUPS_TOPIC
from kbroker.storage.disk import RealDisk
from tests.support.clients import require
from tests.support.groups import GroupHouse
from tools import kafka

DUMP = "org.apache.kafka.tools.DumpLogSegments"
RECORD = re.compile(r"key: (\{.*?\}) payload: (\{.*\}|<DELETE>)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _installed() -> None:
    why = kafka.missing()
    require("Kafka's dump tool", (why or "").partition(": ")[2], found=why is None)


def dumped(folder: Path) -> list[tuple[dict[str, Any], Any]]:
    """Every record's key and value, as the tool shows them; it complains of nothing."""
    files = ",".join(map(str, sorted(folder.glob("*.log"))))
    done = kafka.run(DUMP, "--files", files, "--offsets-decoder", timeout=120)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "isvalid: false" not in done.stdout
    assert "Error" not in done.stdout
    return [
        (json.loads(key), None if value == "<DELETE>" else json.loads(value))
        for key, value in RECORD.findall(done.stdout)
    ]


def test_groups_and_offsets_are_read_field_by_field(tmp_path: Path) -> None:
    house = GroupHouse(RealDisk(), str(tmp_path))
    topic_id = house.create("t", 3)
    now = house.clock.now_ms
    joined = house.stable("group", "t")
    house.commit(
        "group",
        {
            ("t", 0): house.offset(5, leader_epoch=3, metadata="mine", topic_id=topic_id),
            ("t", 1): house.offset(6, topic_id=topic_id),
            ("t", 2): house.offset(7, expire_ms=now + 1000),
        },
        generation=joined.generation,
        member=joined.member_id,
    )
    house.commit("simple", {("u", 0): 1})
    house.delete("simple")
    house.groups.stop()
    house.settle()
    house.broker.directory.close()

    records = dumped(tmp_path / f"{GROUPS_TOPIC}-0")

    groups = [value["data"] for key, value in records if key == {"type": "2", "data": {"group": "group"}}]
    assert ("consumer", 1, "range", joined.member_id, now) == tuple(
        groups[-1][name]
        for name in ("protocolType", "generation", "protocol", "leader", "currentStateTimestamp")
    )
    [member] = groups[-1]["members"]
    assert {
        "memberId": joined.member_id,
        "groupInstanceId": None,
        "clientId": "c",
        "clientHost": "/127.0.0.1",
        "rebalanceTimeout": 60_000,
        "sessionTimeout": 10_000,
        "subscription": {"topics": ["t"], "userData": None},
        "assignment": base64.b64encode(b"mine").decode(),
    } == member
    offsets = {
        (key["data"]["group"], key["data"]["topic"], key["data"]["partition"]): value
        for key, value in records
        if key["type"] == "1"
    }
    shown_id = base64.urlsafe_b64encode(topic_id).decode().rstrip("=")
    assert {
        ("group", "t", 0): {
            "version": "4",
            "data": {
                "offset": 5, "leaderEpoch": 3, "metadata": "mine", "commitTimestamp": now, "topicId": shown_id,
            },
        },
        ("group", "t", 1): {
            "version": "4",
            "data": {
                "offset": 6, "leaderEpoch": -1, "metadata": "", "commitTimestamp": now, "topicId": shown_id,
            },
        },
        ("group", "t", 2): {
            "version": "1",
            "data": {"offset": 7, "metadata": "", "commitTimestamp": now, "expireTimestamp": now + 1000},
        },
        ("simple", "u", 0): None,
    } == offsets  # fmt: skip
    assert ({"type": "2", "data": {"group": "simple"}}, None) in records
