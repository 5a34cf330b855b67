"""The cases that run one after the other on one broker that has been warmed."""

from __future__ import annotations

import time

from bench import client, frames, generator, machine
from bench.brokers import Meter, Peer
from bench.client import Address
from bench.common import (
    CONNECTIONS,
    FETCHED_BYTES,
    MB,
    PARTITIONS,
    REQUEST_SIZE,
    SETTLE_S,
    Bench,
    fetch_plan,
    produced,
    put_rate,
    sync_frames,
    synced,
    topic,
)


def produce(bench: Bench, peer: Peer) -> None:
    _produce(bench, peer, peer.plain, "produce")


def tls_produce(bench: Bench, peer: Peer) -> None:
    note = f"TLS of {peer.name}: {client.tls_of(peer.tls)}"
    if note not in bench.notes:
        bench.notes.append(note)
    _produce(bench, peer, peer.tls, "tls_produce")


def _produce(bench: Bench, peer: Peer, address: Address, key: str) -> None:
    batch = frames.batch_of_size(REQUEST_SIZE, 1024)
    with topic(peer, key, PARTITIONS) as name:
        meter = Meter(peer)
        most = bench.requests_max(len(batch.data))
        run = produced(address, name, batch, seconds=bench.seconds, requests_max=most)
        put_rate(bench, peer, key, run, meter)
    bench.told(peer.name, key, f"{key}_cpu")


def small(bench: Bench, peer: Peer) -> None:
    batch = frames.batch(100, 100)
    with topic(peer, "small", PARTITIONS) as name:
        meter = Meter(peer)
        most = bench.requests_max(len(batch.data))
        run = produced(peer.plain, name, batch, seconds=bench.seconds, requests_max=most)
        bench.put(peer.name, "small", run.requests * batch.records / run.seconds)
        bench.put(peer.name, "small_cpu", meter.cpu_s() / (run.requests * batch.records / 1e6))
        bench.put_run(peer.name, "small", run)
    bench.told(peer.name, "small", "small_cpu")


def sync(bench: Bench, peer: Peer) -> None:
    with topic(peer, "sync", PARTITIONS) as name:
        for connections in (1, 16):
            key = f"sync{connections}"
            synced(bench, peer, name, key, sync_frames(name, connections))
            bench.told(peer.name, key, f"{key}_cpu")


def fetch(bench: Bench, peer: Peer) -> None:
    _fetch(bench, peer, peer.plain, "fetch")


def tls_fetch(bench: Bench, peer: Peer) -> None:
    _fetch(bench, peer, peer.tls, "tls_fetch")


def _fetch(bench: Bench, peer: Peer, address: Address, key: str) -> None:
    batch = frames.batch_of_size(REQUEST_SIZE, 1024)
    with topic(peer, key, PARTITIONS) as name:
        most = FETCHED_BYTES // len(batch.data)
        produced(peer.plain, name, batch, seconds=60, requests_max=most)
        plan = fetch_plan(address, name, batch)
        generator.fetches(address, plan, seconds=1)
        meter = Meter(peer)
        run = generator.fetches(address, plan, seconds=bench.seconds)
        put_rate(bench, peer, key, run, meter)
    bench.told(peer.name, key, f"{key}_cpu")


def rdkafka(bench: Bench, peer: Peer) -> None:
    from bench import librdkafka

    records = int(bench.seconds * 300) * librdkafka.HANDED_OVER  # about the wished seconds on either broker
    port = peer.plain.port
    with topic(peer, "rdkafka", PARTITIONS) as name:
        meter = Meter(peer)
        run = librdkafka.produce(port, name, partitions=PARTITIONS, records=records, value_size=1024)
        put_rate(bench, peer, "rd_produce", run, meter)
        meter = Meter(peer)
        run = librdkafka.consume(port, name, partitions=PARTITIONS, records=records)
        put_rate(bench, peer, "rd_consume", run, meter)
    bench.told(peer.name, "rd_produce", "rd_produce_cpu", "rd_consume", "rd_consume_cpu")


def latency(bench: Bench, peer: Peer) -> None:
    from bench import librdkafka

    seconds = max(2.0, 2 * bench.seconds)
    with topic(peer, "latency", 1) as name:
        delays = generator.end_to_end(peer.plain, name, per_second=1_000, seconds=seconds)
        _put_delays(bench, peer, "e2e", delays)
    with topic(peer, "rd-latency", 1) as name:
        delays = librdkafka.end_to_end(peer.plain.port, name, per_second=1_000, seconds=seconds)
        _put_delays(bench, peer, "rd_e2e", delays)
    bench.told(peer.name, "e2e_p50", "e2e_p99", "rd_e2e_p50", "rd_e2e_p99")


def _put_delays(bench: Bench, peer: Peer, key: str, delays: list[float]) -> None:
    delays.sort()
    bench.put(peer.name, f"{key}_p50", delays[len(delays) // 2] * 1e3)
    bench.put(peer.name, f"{key}_p99", delays[len(delays) * 99 // 100] * 1e3)


def topics(bench: Bench, peer: Peer) -> None:
    for i in range(bench.rounds):
        names = [f"many-{i}-{n}" for n in range(1_000)]
        bench.put(peer.name, "topics", client.create_topics(peer.plain, dict.fromkeys(names, 1)))
        time.sleep(1)  # the folders follow the answer
        client.delete_topics(peer.plain, names)
        time.sleep(2)
    bench.told(peer.name, "topics")


def loaded(bench: Bench, peer: Peer) -> None:
    """Last: what all of it left behind."""
    time.sleep(SETTLE_S)
    bench.put(peer.name, "loaded", machine.memory(peer.pid).pss / MB)
    socks = generator.idle_connections(peer.plain, CONNECTIONS)
    try:
        with topic(peer, "connections", 1) as name:
            produce_one = frames.produce(name, 0, frames.batch(1, 100).data)
            fetch_one = frames.fetch(name, 0, 0, max_bytes=1 << 16)
            for sock in socks:
                sock.sendall(produce_one)
                client.read_answer(sock)
                sock.sendall(fetch_one)
                client.read_answer(sock)
            time.sleep(SETTLE_S)
            bench.put(peer.name, "connections_loaded", machine.memory(peer.pid).pss / MB)
    finally:
        for sock in socks:
            sock.close()
    bench.told(peer.name, "loaded", "connections_loaded")
