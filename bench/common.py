"""What cases share: where figures go, brokers and topics that end with their case, loads that several of them use."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import client, frames, generator, machine
from bench.brokers import ApacheKafka, Certificate, Kbroker, Meter, Peer, start
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
    kbroker_code: Path
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

    def new_peer(
        self,
        name: str,
        *,
        fsync: bool = False,
        tls: bool = False,
        config: Mapping[str, str] | None = None,
    ) -> Peer:
        certificate = self.certificate if tls else None
        if name == "kafka":
            return ApacheKafka(self.folder, certificate, config=config)
        return Kbroker(
            self.folder,
            certificate,
            python=self.kbroker_python,
            code=self.kbroker_code,
            fsync=fsync,
            config=config,
        )


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


def put_rate(bench: Bench, peer: Peer, key: str, run: Run, meter: Meter) -> None:
    """Remember how fast a load was, what it cost the server, and how busy the client was."""
    bench.put(peer.name, key, run.bytes / run.seconds / MB)
    bench.put(peer.name, f"{key}_cpu", meter.cpu_s() / (run.bytes / GB))
    bench.put_run(peer.name, key, run)


def synced(bench: Bench, peer: Peer, name: str, key: str, sent: list[bytes]) -> None:
    """One round of small requests, one in flight on each connection; every acknowledged record must be in the log."""
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


class Growth:
    """What a broker's memory grew by since this was made."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        time.sleep(SETTLE_S)
        self._before = machine.memory(peer.pid).pss

    def kb_for(self, things: int) -> float:
        time.sleep(SETTLE_S)
        return (machine.memory(self._peer.pid).pss - self._before) / things / 1e3
