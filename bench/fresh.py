"""The cases that start their own broker."""

from __future__ import annotations

import time

from bench import client, frames, generator, machine
from bench.brokers import Meter, Peer, alive
from bench.client import Address
from bench.common import (
    CONNECTIONS,
    IN_FLIGHT,
    MB,
    PARTITIONS,
    REQUEST_SIZE,
    SETTLE_S,
    Bench,
    Growth,
    check_produce,
    produced,
    put_rate,
    running,
    sync_frames,
    synced,
    topic,
)


def start_up(bench: Bench, name: str) -> None:
    """From the start of the process to a record acknowledged by acks=all, topic creation included."""
    frame = frames.produce("first", 0, frames.batch(1, 100).data)
    for _ in range(bench.rounds):
        peer = bench.new_peer(name)
        peer.prepare()
        began = time.perf_counter()
        peer.launch()
        try:
            _until_produced(peer, frame)
            bench.put(name, "start", time.perf_counter() - began)
        finally:
            peer.end()
    bench.told(name, "start")


def _until_produced(peer: Peer, frame: bytes) -> None:
    deadline = time.monotonic() + 60
    created = False
    while time.monotonic() < deadline and alive(peer):
        try:
            if not created:
                client.create_topics(peer.plain, {"first": 1})
                created = True
            if frames.produce_error("first", client.ask(peer.plain, frame)) == 0:
                return
        except OSError:
            pass  # not listening yet
        time.sleep(0.005)
    what = "acknowledged nothing within 60 s of its start" if alive(peer) else "ended by itself"
    raise RuntimeError(f"{peer.name} {what}")


def memory(bench: Bench, name: str) -> None:
    """Idle, and with idle connections."""
    with running(bench.new_peer(name)) as peer:
        time.sleep(SETTLE_S)
        idle = machine.memory(peer.pid).pss
        socks = generator.idle_connections(peer.plain, CONNECTIONS)
        time.sleep(SETTLE_S)
        connected = machine.memory(peer.pid).pss
        for sock in socks:
            sock.close()
    bench.put(name, "idle", idle / MB)
    bench.put(name, "connections", connected / MB)
    bench.put(name, "connection_kb", (connected - idle) / CONNECTIONS / 1e3)
    bench.told(name, "idle", "connections", "connection_kb")


def scaling(bench: Bench, name: str) -> None:
    """One partition is used while others only exist: what a request costs must not follow their number."""
    with running(bench.new_peer(name)) as peer:
        client.create_topic(peer.plain, "used", 1)
        _scaling_step(bench, peer, "1")
        client.create_topic(peer.plain, "unused", 99)
        _scaling_step(bench, peer, "100")
        client.create_topics(peer.plain, {f"unused-{i}": 100 for i in range(99)})
        _scaling_step(bench, peer, "10000")
        socks = generator.idle_connections(peer.plain, CONNECTIONS)
        _scaling_step(bench, peer, "conns")
        for sock in socks:
            sock.close()
    steps = ("1", "100", "10000", "conns")
    bench.told(name, *(f"{what}_at_{n}" for what in ("request", "fetch") for n in steps))


def partitions(bench: Bench, name: str) -> None:
    """What an idle partition costs: merely created, asked for its end, holding a record.

    On a broker that has done little before: memory that a load had given back would hide the growth.
    """
    names = [f"idle-{i}" for i in range(100)]
    count = 100 * len(names)
    with running(bench.new_peer(name)) as peer:
        client.create_topic(peer.plain, "first", 1)
        _produce_one_to_each(peer.plain, ["first"], 1)  # code and tables are in memory now
        grown = Growth(peer)
        client.create_topics(peer.plain, dict.fromkeys(names, 100))
        bench.put(name, "partition_kb", grown.kb_for(count))
        for one in names:
            client.ends(peer.plain, one, 100)
        asked_kb = grown.kb_for(count)
        bench.put(name, "partition_asked_kb", asked_kb)
        grown = Growth(peer)
        _produce_one_to_each(peer.plain, names, 100)
        bench.put(name, "partition_used_kb", asked_kb + grown.kb_for(count))
    bench.told(name, "partition_kb", "partition_asked_kb", "partition_used_kb")


def _produce_one_to_each(address: Address, names: list[str], partitions: int) -> None:
    record = frames.batch(1, 100).data
    with address.connect() as sock:
        for name in names:
            for partition in range(partitions):
                sock.sendall(frames.produce(name, partition, record))
                if error := frames.produce_error(name, client.read_answer(sock)):
                    raise RuntimeError(f"Produce answered error {error}")


def _scaling_step(bench: Bench, peer: Peer, step: str) -> None:
    sent = frames.produce("used", 0, frames.batch(1, 100).data)
    check_produce(peer.plain, "used", sent)
    size = frames.produce_answer_size("used")
    # One batch, whatever follows it: the answer then has one length.
    asked = frames.fetch("used", 0, 0, max_bytes=1)
    fetched_size = len(client.ask(peer.plain, asked))
    for _ in range(bench.rounds):
        meter = Meter(peer)
        run = generator.round_trips(peer.plain, [sent] * 16, answer_size=size, seconds=bench.seconds)
        bench.put(peer.name, f"request_at_{step}", meter.cpu_s() / run.requests * 1e6)
        meter = Meter(peer)
        run = generator.round_trips(peer.plain, [asked] * 16, answer_size=fetched_size, seconds=bench.seconds)
        bench.put(peer.name, f"fetch_at_{step}", meter.cpu_s() / run.requests * 1e6)


def fsync(bench: Bench, name: str) -> None:
    """kbroker with fsync before ack, and what the disk gives without any broker."""
    batch = frames.batch_of_size(REQUEST_SIZE, 1024)
    record = frames.batch(1, 100).data
    bare = bench.folder / "bare"
    bare.mkdir(parents=True, exist_ok=True)
    with running(bench.new_peer(name, fsync=True)) as peer:
        for i in range(bench.rounds):
            with topic(peer, f"fsync-{i}", PARTITIONS) as of_round:
                meter = Meter(peer)
                most = bench.requests_max(len(batch.data))
                run = produced(peer.plain, of_round, batch, seconds=bench.seconds, requests_max=most)
                put_rate(bench, peer, "fsync_produce", run, meter)
                in_flight = PARTITIONS * IN_FLIGHT
                appends = machine.grouped_appends(bare, batch.data, seconds=bench.seconds, group=in_flight)
                bench.put(name, "bare_produce", appends * len(batch.data) / MB)
            with topic(peer, f"fsync-sync-{i}", PARTITIONS) as of_round:
                bench.put(name, "bare_synced", machine.synced_appends(bare, record, seconds=bench.seconds))
                synced(bench, peer, of_round, "fsync_sync16", sync_frames(of_round, 16))
                bench.put(name, "bare_grouped", machine.grouped_appends(bare, record, seconds=bench.seconds))
    bench.told(
        name,
        "bare_produce",
        "fsync_produce",
        "fsync_produce_cpu",
        "fsync_sync16",
        "fsync_sync16_cpu",
        "bare_synced",
        "bare_grouped",
    )
