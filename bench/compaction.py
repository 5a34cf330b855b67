"""How fast a log is compacted, and what a producer beside it feels of it.

A topic is filled while it may not be compacted; then its config says that it may, and the cleaner's own checkpoint says
when that is done. A second topic takes one request after another all the while.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from bench import client, frames, machine
from bench.brokers import Peer
from bench.common import MB, Bench, running

FILLED_BYTES = 256_000_000
REQUEST_SIZE = 64 << 10
SEGMENT_BYTES = 32 << 20
KEYS = {"1k": 20_000, "100": 200_000}  # about a tenth of the records stays
VALUE_BYTES = {"1k": 1000, "100": 75}
IN_FLIGHT = 5
BACKOFF_MS = 100
DONE_S_MAX = 300
PROBES_PER_SECOND = 500
TOPIC, BROKER = 2, 4  # resource types


def compaction(bench: Bench, name: str) -> None:
    """Records of 1 KiB and of 100 B, each in a broker of its own."""
    for size in KEYS:
        with running(bench.new_peer(name)) as peer:
            client.alter(peer.plain, BROKER, "", {"log.cleaner.backoff.ms": str(BACKOFF_MS)})
            client.create_topic(peer.plain, "beside", 1)
            for i in range(bench.rounds + 1):  # the first one warms
                _round(bench, peer, size, f"compacted-{i}", counts=i > 0)
    bench.told(name, *(f"compaction_{size}{what}" for size in KEYS for what in ("", "_p99", "_p99_without")))


def _round(bench: Bench, peer: Peer, size: str, topic: str, *, counts: bool) -> None:
    address = peer.plain
    configs = {
        "cleanup.policy": "compact",
        "segment.bytes": str(SEGMENT_BYTES),
        "min.cleanable.dirty.ratio": "1.0",  # never more than all of it
    }
    client.create_topic(address, topic, 1, configs)
    fill(address, topic, KEYS[size], VALUE_BYTES[size])
    folder = bench.folder / peer.name / "data"
    closed = sorted((folder / f"{topic}-0").glob("*.log"))
    read = sum(path.stat().st_size for path in closed[:-1])
    up_to = int(closed[-1].stem)
    without = probe(address, lambda: False, seconds=2.0)
    cpu = machine.cpu_s(peer.pid)
    client.alter(address, TOPIC, topic, {"min.cleanable.dirty.ratio": "0.01"})
    began = time.perf_counter()
    beside = probe(address, lambda: cleaned(folder, topic) >= up_to, seconds=DONE_S_MAX)
    took = time.perf_counter() - began
    if cleaned(folder, topic) < up_to:
        raise RuntimeError(f"{topic} was not compacted within {DONE_S_MAX} s")
    if counts:
        bench.put(peer.name, f"compaction_{size}", read / took / MB)
        bench.put(peer.name, f"compaction_{size}_p99", beside)
        bench.put(peer.name, f"compaction_{size}_p99_without", without)
        bench.say(
            f"  {read / took / MB:.0f} MB/s, {took:.2f} s, p99 {beside:.2f} ms, without {without:.2f} ms, "
            f"server CPU {machine.cpu_s(peer.pid) - cpu:.2f} s"
        )
    client.delete_topics(address, [topic])
    time.sleep(1.5)


def fill(address: client.Address, topic: str, keys: int, value_bytes: int) -> None:
    """FILLED_BYTES of records, and as many again as a segment holds, with a few requests in flight."""
    with address.connect() as sock:
        open_ = 0
        for batch in keyed(FILLED_BYTES + SEGMENT_BYTES, keys, value_bytes):
            sock.sendall(frames.produce(topic, 0, batch))
            open_ += 1
            if open_ == IN_FLIGHT:
                _answered(sock, topic)
                open_ -= 1
        for _ in range(open_):
            _answered(sock, topic)


def _answered(sock, topic: str) -> None:  # type: ignore[no-untyped-def]
    if error := frames.produce_error(topic, client.read_answer(sock)):
        raise RuntimeError(f"Produce answered error {error}")


def keyed(size: int, keys: int, value_bytes: int) -> Iterator[bytes]:
    """Batches of REQUEST_SIZE with records of evenly chosen keys."""
    value = random.Random(2).randbytes(value_bytes)
    choose = random.Random(1).randrange
    per_batch = REQUEST_SIZE // (value_bytes + 24)
    made = 0
    while made < size:
        records = [frames.keyed_record(i, b"key-%08d" % choose(keys), value) for i in range(per_batch)]
        batch = frames.batch_of(records)
        made += len(batch)
        yield batch


def probe(address: client.Address, over, *, seconds: float) -> float:  # type: ignore[no-untyped-def]
    """One small request after another, at an even pace, until `over()`: the 99th percentile of their times, in ms."""
    frame = frames.produce("beside", 0, frames.batch(1, 100).data)
    took: list[float] = []
    with address.connect() as sock:
        began = due = time.perf_counter()
        while time.perf_counter() - began < seconds and not (len(took) % 5 == 0 and over()):
            due += 1 / PROBES_PER_SECOND
            time.sleep(max(0.0, due - time.perf_counter()))
            sent = time.perf_counter()
            sock.sendall(frame)
            _answered(sock, "beside")
            took.append(time.perf_counter() - sent)
            due = max(due, time.perf_counter() - 0.1)
    took.sort()
    return 1000 * took[int(len(took) * 0.99)] if took else 0.0


def cleaned(folder, topic: str) -> int:  # type: ignore[no-untyped-def]
    """Up to where the cleaner says that the topic is compacted."""
    try:
        lines = (folder / "cleaner-offset-checkpoint").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[2]) for line in lines[2:] if line.startswith(f"{topic} ")), 0)
