"""The loads that go through confluent-kafka, that is librdkafka: one producer, one consumer."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from bench.generator import Run, Stopwatch

SILENCE_S_MAX = 30
# Records that a producer is given in one call, and those that it may have unsent.
HANDED_OVER = 1_000
UNSENT_MAX = 400_000
# A consumer that is 100,000 records or 64 MB ahead of its application asks for nothing during `fetch.queue.backoff.ms`. As
# it comes that is a second: then the application is measured, and of two brokers the faster one loses.
QUEUE_BACKOFF_MS = 10


def produce(port: int, topic: str, *, partitions: int, records: int, value_size: int) -> Run:
    """Send `records` records (HANDED_OVER times a number), acks=all, evenly over the partitions, in its own batches.

    Handed to it many at a time: a call of its Python binding for each takes a core, and nothing else is measured.
    """
    failed: list[KafkaError] = []
    producer = Producer(
        {
            "bootstrap.servers": f"127.0.0.1:{port}",
            "linger.ms": 5,
            "queue.buffering.max.messages": UNSENT_MAX + HANDED_OVER,
            "queue.buffering.max.kbytes": 1 << 20,  # these UNSENT_MAX and more
            "delivery.report.only.error": True,
            "on_delivery": lambda error, _: failed.append(error) if error else None,
        }
    )
    value = bytes(i * 7 & 0xFF for i in range(value_size))
    batch = [{"value": value} for _ in range(HANDED_OVER)]
    watch = Stopwatch()
    for i in range(records // HANDED_OVER):
        while len(producer) > UNSENT_MAX:
            producer.poll(0.01)
        taken = producer.produce_batch(topic, batch, partition=i % partitions)
        if taken != HANDED_OVER:
            raise RuntimeError(f"librdkafka took {taken} of {HANDED_OVER} records")
    left = producer.flush(SILENCE_S_MAX)
    run = watch.run(records, records * value_size)
    if left or failed:
        raise RuntimeError(f"{left} records unanswered, {len(failed)} refused: {failed[:1]}")
    return run


def consume(port: int, topic: str, *, partitions: int, records: int) -> Run:
    """Read `records` records from the beginning of all partitions."""
    consumer = _consumer(port, "bench", {"enable.auto.commit": False, "auto.offset.reset": "error"})
    try:
        watch = Stopwatch()
        consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        return _read(consumer, records, lambda: watch)
    finally:
        consumer.close()


def consume_by_group(port: int, topic: str, group: str, *, records: int) -> Run:
    """The same by a group's only member, that commits by itself. The clock starts when it has its partitions."""
    consumer = _consumer(port, group, {"auto.offset.reset": "earliest"})
    watches: list[Stopwatch] = []
    try:
        consumer.subscribe([topic], on_assign=lambda _, __: watches.append(Stopwatch()))
        return _read(consumer, records, lambda: watches[0])
    finally:
        consumer.close()


def _consumer(port: int, group: str, options: dict[str, str | bool]) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": f"127.0.0.1:{port}",
            "group.id": group,
            "enable.auto.offset.store": options.get("enable.auto.commit", True),
            "fetch.queue.backoff.ms": QUEUE_BACKOFF_MS,
            **options,
        }
    )


def _read(consumer: Consumer, records: int, watch: Callable[[], Stopwatch]) -> Run:
    seen = size = 0
    silent_since = time.monotonic()
    while seen < records:
        # never more than there is: the call waits for all of it, and that second would count
        for message in consumer.consume(min(10_000, records - seen), timeout=1.0):
            if error := message.error():
                raise RuntimeError(f"consume: {error}")
            size += len(message.value() or b"")
            seen += 1
            silent_since = 0.0
        now = time.monotonic()
        silent_since = silent_since or now
        if now - silent_since > SILENCE_S_MAX:
            raise TimeoutError(f"{records - seen} records did not come")
    return watch().run(seen, size)


def end_to_end(port: int, topic: str, *, per_second: int, seconds: float) -> list[float]:
    """As `generator.end_to_end`, by a producer that does not linger and a consumer that polls, in one thread: seconds
    from `produce` to the record's return by `poll`."""
    servers = {"bootstrap.servers": f"127.0.0.1:{port}"}
    producer = Producer({**servers, "linger.ms": 0, "delivery.report.only.error": True})
    consumer = Consumer(
        {**servers, "group.id": "bench", "enable.auto.commit": False, "fetch.wait.max.ms": 500}
    )
    value = bytes(100)
    count = int(per_second * seconds)
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        # The first record finds out where everything is; it does not count.
        producer.produce(topic, value, partition=0)
        producer.flush(SILENCE_S_MAX)
        if consumer.poll(SILENCE_S_MAX) is None:
            raise TimeoutError("the first record did not come")
        sent: list[float] = []
        delays: list[float] = []
        begin = time.perf_counter() + 0.05
        give_up = begin + seconds + SILENCE_S_MAX
        while len(delays) < count:
            now = time.perf_counter()
            if len(sent) < count and now >= begin + len(sent) / per_second:
                sent.append(now)
                producer.produce(topic, value, partition=0)
                continue
            if now > give_up:
                raise TimeoutError(f"{count - len(delays)} records did not come")
            wait = max(0.0, begin + len(sent) / per_second - now) if len(sent) < count else 1.0
            message = consumer.poll(wait)
            if message is not None:
                if error := message.error():
                    raise RuntimeError(f"poll: {error}")
                delays.append(time.perf_counter() - sent[len(delays)])
        producer.flush(SILENCE_S_MAX)
        return delays
    finally:
        consumer.close()
