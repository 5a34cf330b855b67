"""What groups cost: a member more in one of a hundred, commits of a thousand groups, reading through a group, memory."""

from __future__ import annotations

from bench import client, generator, group_load
from bench import group_frames as gf
from bench.brokers import Meter, Peer
from bench.common import PARTITIONS, Bench, Growth, put_rate, running, topic

MEMBERS = 100
SETTLES_PER_ROUND = 10
SETTLES_TO_WARM = 10

COMMITTING_GROUPS = 1_000
COMMITTED_PARTITIONS = 10
COMMIT_CONNECTIONS = 20
COORDINATORS = 50  # groups asked for until all partitions surely serve
COMMIT_ROUND_SECONDS = 3.0  # times the length of other rounds

MEASURED_GROUPS = 30  # of MEMBERS each, for what a member takes
MEASURED_PARTITIONS = 1_000


def rebalance(bench: Bench, peer: Peer) -> None:
    """One member more comes into a settled group of 99; afterwards it leaves again, which is not measured."""
    with topic(peer, "rebalance", MEMBERS) as name:
        members = group_load.gathered(peer.plain, "rebalance", name, MEMBERS - 1)
        for _ in range(SETTLES_TO_WARM):
            _one_more(peer, members, name)
        for _ in range(bench.rounds):
            meter = Meter(peer)
            for _ in range(SETTLES_PER_ROUND):
                bench.put(peer.name, "rebalance", _one_more(peer, members, name) * 1e3)
            bench.put(peer.name, "rebalance_cpu", meter.cpu_s() / SETTLES_PER_ROUND * 1e3)
        for member in members:
            member.leave()
    bench.told(peer.name, "rebalance", "rebalance_cpu")


def _one_more(peer: Peer, members: list[group_load.Member], name: str) -> float:
    """Seconds that the group took to take it in."""
    newcomer = group_load.Member(peer.plain, "rebalance", name)
    took = group_load.settle(members, [newcomer])
    newcomer.leave()
    group_load.settle(members, [])
    return took


def commits(bench: Bench, peer: Peer) -> None:
    """Each group has a member, and commits ten partitions once a second."""
    with topic(peer, "commits", COMMITTED_PARTITIONS) as name:
        for i in range(COORDINATORS):
            group_load.find_coordinator(peer.plain, f"commits-{i}")
        socks = [peer.plain.connect() for _ in range(COMMIT_CONNECTIONS)]
        try:
            sent = []
            for i in range(COMMITTING_GROUPS):
                group = f"commits-{i}"
                member_id, generation = group_load.alone(socks[i % len(socks)], group, name)
                sent.append(gf.offset_commit(group, generation, member_id, name, COMMITTED_PARTITIONS))
            answer = gf.offset_commit_answer(name, COMMITTED_PARTITIONS)
            _commit(peer, socks, sent, answer, bench.seconds)  # warms
            for _ in range(bench.rounds):
                meter = Meter(peer)
                run = _commit(peer, socks, sent, answer, COMMIT_ROUND_SECONDS * bench.seconds)
                bench.put(peer.name, "commit_cpu", meter.cpu_s() / run.requests * 1e6)
                bench.put_run(peer.name, "commit_cpu", run)
        finally:
            for sock in socks:
                sock.close()
    bench.told(peer.name, "commit_cpu")


def _commit(peer: Peer, socks: list, sent: list[bytes], answer: bytes, seconds: float) -> generator.Run:  # type: ignore[type-arg]
    return group_load.by_the_clock(socks, sent, answer=answer, per_second=COMMITTING_GROUPS, seconds=seconds)


def consume(bench: Bench, peer: Peer) -> None:
    """librdkafka reads through a group, from the moment that it has its partitions."""
    from bench import librdkafka

    records = int(bench.seconds * 300) * librdkafka.HANDED_OVER
    port = peer.plain.port
    with topic(peer, "group-consume", PARTITIONS) as name:
        librdkafka.produce(port, name, partitions=PARTITIONS, records=records, value_size=1024)
        for i in range(bench.rounds):
            meter = Meter(peer)
            run = librdkafka.consume_by_group(port, name, f"consume-{i}", records=records)
            put_rate(bench, peer, "group_consume", run, meter)
    bench.told(peer.name, "group_consume", "group_consume_cpu")


def memory(bench: Bench, name: str) -> None:
    """What a member takes when its connection is gone, and an idle partition of the topic that groups are kept in."""
    config = {"offsets.topic.num.partitions": str(MEASURED_PARTITIONS)}
    with running(bench.new_peer(name, config=config)) as peer:
        client.create_topic(peer.plain, "of-members", MEMBERS)
        grown = Growth(peer)
        group_load.find_coordinator(peer.plain, "members")
        bench.put(name, "groups_partition_kb", grown.kb_for(MEASURED_PARTITIONS))
        _members(peer, "warm")
        grown = Growth(peer)
        for i in range(MEASURED_GROUPS):
            _members(peer, f"members-{i}")
        bench.put(name, "member_kb", grown.kb_for(MEASURED_GROUPS * MEMBERS))
    bench.told(name, "groups_partition_kb", "member_kb")


def _members(peer: Peer, group: str) -> None:
    for member in group_load.gathered(peer.plain, group, "of-members", MEMBERS):
        member.sock.close()
