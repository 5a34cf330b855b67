"""The script that runs Apache Kafka never ends a process that is not its own. No JVM is started here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from tools import kafka


@pytest.fixture(autouse=True)
def notes(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka, "RUNNING", tmp_path / "running")
    kafka.RUNNING.mkdir()
    return kafka.RUNNING


def test_a_pid_that_went_to_somebody_else_is_left_alone(notes):
    note = notes / "9092.json"
    note.write_text(json.dumps({"pid": os.getpid(), "folder": "/a/folder/nobody/has"}))

    assert [] == kafka.stop_running(None)
    assert not note.exists()


def test_only_the_broker_of_the_port_is_stopped(notes, tmp_path):
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen([*waiting, str(tmp_path)], stdin=subprocess.PIPE) as process:
        (notes / "9092.json").write_text(json.dumps({"pid": process.pid, "folder": str(tmp_path)}))

        assert [] == kafka.stop_running(9093)
        assert process.poll() is None


def test_what_is_missing_is_named_with_its_cure(monkeypatch, tmp_path):
    monkeypatch.setattr(kafka, "LIBS", tmp_path / "none")
    monkeypatch.setattr(kafka.shutil, "which", lambda _: "/usr/bin/java")
    assert "python -m tools.kafka install" in (kafka.missing() or "")

    monkeypatch.setattr(kafka.shutil, "which", lambda _: None)
    assert "apt install" in (kafka.missing() or "")


def test_a_tls_listener_comes_with_a_certificate(tmp_path):
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_text("CHAIN\n")
    key.write_text("KEY\n")
    broker = kafka.Kafka(
        port=9092, folder=tmp_path, tls=(chain, key), tls_port=9093, config={"num.partitions": "3"}
    )

    properties = broker._properties()

    assert "SSL://127.0.0.1:9093" in properties["advertised.listeners"]
    assert "KEY\nCHAIN\n" == (tmp_path / "server.pem").read_text()
    assert "3" == properties["num.partitions"]


def test_a_port_where_somebody_else_listens_is_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(kafka.KafkaUnavailable, match=f"port {port} cannot be had"):
            kafka.Kafka(port=port, folder=tmp_path).start()

    assert [] == list(tmp_path.glob("*.properties"))
