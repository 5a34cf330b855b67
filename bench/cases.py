"""What is measured: one function per case. A case knows a running broker and where its figures go, nothing else.

LOADED cases run one after the other on one broker that has been warmed; FRESH ones start their own.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import client, frames, generator, machine
from bench.brokers import ApacheKafka, Certificate, Kbroker, Meter, Peer, alive, start
from bench.client import Address
from bench.generator import Run

MB, GB = 1e6, 1e9

PARTITIONS = 6
IN_FLIGHT = 5  # what stock producers keep
REQUEST_SIZE = 64 << 10
FETCH_SIZE = 1 << 20
CONNECTIONS = 2_000
SETTLE_S = 2.0

# Bytes that one round may write. Below what the kernel lets stand dirty before it slows the writers down, else the
# disk is measured.
ROUND_BYTES_MAX = 1_500_000_000
ROUND_MEMORY_SHARE = 0.06
FETCHED_BYTES = 600_000_000


@dataclass(slots=True)
class Bench:
    """The figures so far, and how long each case may take."""

    seconds: float
    rounds: int
    folder: Path
    kbroker_python: str
    certificate: Certificate | None
    say: Callable[[str], None]
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # metric -> broker -> rounds
    client_busy: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, peer: str, key: str, value: float) -> None:
        self.values.setdefault(key, {}).setdefault(peer, []).append(value)

    def put_run(self, peer: str, key: str, run: Run) -> None:
        """Remember how busy the client was: the worst of the rounds."""
        busy = self.client_busy.setdefault(key, {})
        busy[peer] = max(busy.get(peer, 0.0), run.client_busy)

    def told(self, peer: str, *keys: str) -> None:
        """Print the medians of what has just been measured."""
        for key in keys:
            if figures := self.values.get(key, {}).get(peer):
                self.say(f"  {peer:8} {key:20} {statistics.median(figures):>12,.3f}")

    def requests_max(self, size: int) -> int:
        """How many requests of `size` bytes one round may write."""
        return int(min(ROUND_BYTES_MAX, ROUND_MEMORY_SHARE * machine.free_memory()) / size)

    def new_peer(self, name: str, *, fsync: bool = False, tls: bool = False) -> Peer:
        certificate = self.certificate if tls else None
        if name == "kafka":
            return ApacheKafka(self.folder, certificate)
        return Kbroker(self.folder, certificate, python=self.kbroker_python, fsync=fsync)


@contextlib.contextmanager
def running(peer: Peer) -> Iterator[Peer]:
    """A started broker with an empty folder, ended whatever happens."""
    start(peer)
    try:
        yield peer
    finally:
        peer.end()


@contextlib.contextmanager
def topic(peer: Peer, name: str, partitions: int) -> Iterator[str]:
    """A topic that leaves disk and page cache when its case is over."""
    client.create_topic(peer.plain, name, partitions)
    yield name
    client.delete_topics(peer.plain, [name])
    time.sleep(1.5)  # the delay in brokers.SHARED_CONFIG, and the deletion itself


# -- loads that several cases share


def produced(
    address: Address,
    name: str,
    batch: frames.Batch,
    *,
    seconds: float,
    requests_max: int,
    depth: int = IN_FLIGHT,
) -> Run:
    """Pipelined produce to every partition; afterwards every acknowledged record must be in the log."""
    sent = [frames.produce(name, p, batch.data) for p in range(PARTITIONS)]
    size = frames.produce_answer_size(name)
    before = client.ends(address, name, PARTITIONS)
    check_produce(address, name, sent[0])
    run = generator.pipelined(
        address, sent, answer_size=size, depth=depth, seconds=seconds, requests_max=requests_max
    )
    grown = sum(client.ends(address, name, PARTITIONS)) - sum(before)
    if grown != (run.requests + 1) * batch.records:
        raise RuntimeError(f"{(run.requests + 1) * batch.records} records acknowledged, {grown} in the log")
    return run


def check_produce(address: Address, name: str, frame: bytes) -> None:
    """One request, looked at closely, before many are only counted."""
    answer = client.ask(address, frame)
    if error := frames.produce_error(name, answer):
        raise RuntimeError(f"Produce answered error {error}")
    if len(answer) != frames.produce_answer_size(name):
        raise RuntimeError(f"an unexpected Produce answer: {answer.hex()}")


def fetch_plan(address: Address, name: str, batch: frames.Batch) -> list[list[bytes]]:
    """For each partition the fetches that walk through it, each answered with (nearly) FETCH_SIZE bytes."""
    step = FETCH_SIZE // len(batch.data) * batch.records
    plan = []
    for partition, end in enumerate(client.ends(address, name, PARTITIONS)):
        offsets = range(0, end - step, step)
        plan.append([frames.fetch(name, partition, at, max_bytes=FETCH_SIZE) for at in offsets])
        got = frames.fetched(name, client.ask(address, plan[-1][0]))
        if got.error or got.records_size < 0.9 * FETCH_SIZE:
            raise RuntimeError(f"an unexpected Fetch answer: {got}")
    return plan


def sync_frames(name: str, connections: int) -> list[bytes]:
    """100 B records, one in a request, each connection with its own partition or sharing it evenly."""
    record = frames.batch(1, 100)
    return [frames.produce(name, i % PARTITIONS, record.data) for i in range(connections)]


def warm(peer: Peer, seconds: float, *, tls: bool) -> None:
    """All the loads in turn, little by little: what Kafka's compiler needs before it is itself."""
    batch, small = frames.batch_of_size(REQUEST_SIZE, 1024), frames.batch(100, 100)
    until = time.monotonic() + seconds
    with topic(peer, "warm", PARTITIONS) as name:
        size = frames.produce_answer_size(name)
        first = True
        while first or time.monotonic() < until:
            for address in [peer.plain, peer.tls] if tls else [peer.plain]:
                produced(address, name, batch, seconds=1, requests_max=1_000)
                if first:
                    plan = fetch_plan(address, name, batch)
                generator.fetches(address, plan, seconds=0.5)
            produced(peer.plain, name, small, seconds=0.5, requests_max=5_000)
            for connections in (1, 16):
                sent = sync_frames(name, connections)
                generator.round_trips(peer.plain, sent, answer_size=size, seconds=0.5)
            first = False


# -- cases on a warm broker


def produce(bench: Bench, peer: Peer) -> None:
    _produce(bench, peer, peer.plain, "produce")


def tls_produce(bench: Bench, peer: Peer) -> None:
    bench.notes.append(f"TLS of {peer.name}: {client.tls_of(peer.tls)}")
    _produce(bench, peer, peer.tls, "tls_produce")


def _produce(bench: Bench, peer: Peer, address: Address, key: str) -> None:
    batch = frames.batch_of_size(REQUEST_SIZE, 1024)
    for i in range(bench.rounds):
        with topic(peer, f"{key}-{i}", PARTITIONS) as name:
            meter = Meter(peer)
            most = bench.requests_max(len(batch.data))
            run = produced(address, name, batch, seconds=bench.seconds, requests_max=most)
            _put_rate(bench, peer, key, run, meter)
    bench.told(peer.name, key, f"{key}_cpu")


def _put_rate(bench: Bench, peer: Peer, key: str, run: Run, meter: Meter) -> None:
    bench.put(peer.name, key, run.bytes / run.seconds / MB)
    bench.put(peer.name, f"{key}_cpu", meter.cpu_s() / (run.bytes / GB))
    bench.put_run(peer.name, key, run)


def small(bench: Bench, peer: Peer) -> None:
    batch = frames.batch(100, 100)
    for i in range(bench.rounds):
        with topic(peer, f"small-{i}", PARTITIONS) as name:
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
            for _ in range(bench.rounds):
                _sync(bench, peer, name, key, sync_frames(name, connections))
            bench.told(peer.name, key, f"{key}_cpu")


def _sync(bench: Bench, peer: Peer, name: str, key: str, sent: list[bytes]) -> None:
    before = sum(client.ends(peer.plain, name, PARTITIONS))
    check_produce(peer.plain, name, sent[0])
    meter = Meter(peer)
    size = frames.produce_answer_size(name)
    run = generator.round_trips(peer.plain, sent, answer_size=size, seconds=bench.seconds)
    bench.put(peer.name, key, run.requests / run.seconds)
    bench.put(peer.name, f"{key}_cpu", meter.cpu_s() / run.requests * 1e6)
    bench.put_run(peer.name, key, run)
    grown = sum(client.ends(peer.plain, name, PARTITIONS)) - before
    if grown != run.requests + 1:
        raise RuntimeError(f"{run.requests + 1} records acknowledged, {grown} in the log")


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
        for _ in range(bench.rounds):
            meter = Meter(peer)
            run = generator.fetches(address, plan, seconds=bench.seconds)
            _put_rate(bench, peer, key, run, meter)
    bench.told(peer.name, key, f"{key}_cpu")


def rdkafka(bench: Bench, peer: Peer) -> None:
    from bench import librdkafka

    records = int(bench.seconds * 200_000)  # about the wished seconds on either broker
    port = peer.plain.port
    for i in range(bench.rounds):
        with topic(peer, f"rdkafka-{i}", PARTITIONS) as name:
            meter = Meter(peer)
            run = librdkafka.produce(port, name, partitions=PARTITIONS, records=records, value_size=1024)
            _put_rate(bench, peer, "rd_produce", run, meter)
            meter = Meter(peer)
            run = librdkafka.consume(port, name, partitions=PARTITIONS, records=records)
            _put_rate(bench, peer, "rd_consume", run, meter)
    bench.told(peer.name, "rd_produce", "rd_produce_cpu", "rd_consume", "rd_consume_cpu")


def latency(bench: Bench, peer: Peer) -> None:
    from bench import librdkafka

    seconds = max(2.0, 2 * bench.seconds)
    for i in range(bench.rounds):
        with topic(peer, f"latency-{i}", 1) as name:
            delays = generator.end_to_end(peer.plain, name, per_second=1_000, seconds=seconds)
            _put_delays(bench, peer, "e2e", delays)
        with topic(peer, f"rd-latency-{i}", 1) as name:
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


# -- cases that start their own broker


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
        grown = _Growth(peer)
        client.create_topics(peer.plain, dict.fromkeys(names, 100))
        bench.put(name, "partition_kb", grown.kb_for(count))
        for one in names:
            client.ends(peer.plain, one, 100)
        asked_kb = grown.kb_for(count)
        bench.put(name, "partition_asked_kb", asked_kb)
        grown = _Growth(peer)
        _produce_one_to_each(peer.plain, names[:20], 100)
        bench.put(name, "partition_used_kb", asked_kb + grown.kb_for(2_000))
    bench.told(name, "partition_kb", "partition_asked_kb", "partition_used_kb")


class _Growth:
    """What a broker's memory grew by since this was made."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        time.sleep(SETTLE_S)
        self._before = machine.memory(peer.pid).pss

    def kb_for(self, things: int) -> float:
        time.sleep(SETTLE_S)
        return (machine.memory(self._peer.pid).pss - self._before) / things / 1e3


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
                _put_rate(bench, peer, "fsync_produce", run, meter)
                in_flight = PARTITIONS * IN_FLIGHT
                appends = machine.grouped_appends(bare, batch.data, seconds=bench.seconds, group=in_flight)
                bench.put(name, "bare_produce", appends * len(batch.data) / MB)
            with topic(peer, f"fsync-sync-{i}", PARTITIONS) as of_round:
                bench.put(name, "bare_synced", machine.synced_appends(bare, record, seconds=bench.seconds))
                _sync(bench, peer, of_round, "fsync_sync16", sync_frames(of_round, 16))
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


# What Kafka has no counterpart to.
KBROKER_ONLY = frozenset({"scaling", "partitions", "fsync"})

FRESH: dict[str, Callable[[Bench, str], None]] = {
    "start": start_up,
    "memory": memory,
    "scaling": scaling,
    "partitions": partitions,
    "fsync": fsync,
}
LOADED: dict[str, Callable[[Bench, Peer], None]] = {
    "produce": produce,
    "sync": sync,
    "small": small,
    "fetch": fetch,
    "rdkafka": rdkafka,
    "latency": latency,
    "tls-produce": tls_produce,
    "tls-fetch": tls_fetch,
    "topics": topics,
    "loaded": loaded,
}
