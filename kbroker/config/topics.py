"""A topic's configuration: `TopicConfig`, one frozen object per distinct set of overrides. The field is the row.

Knows the options, their defaults and which broker options they fall back to; does not know where values come from.
"""

from __future__ import annotations

from typing import Any

from kbroker.config.options import BOOLEAN, DOUBLE, INT, LIST, LONG, LONG_MAX, STRING, option, options_of

CODECS = ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")
TIMESTAMP_TYPES = ("CreateTime", "LogAppendTime")
MINUTE_MS, HOUR_MS = 60_000, 3_600_000


def check_retention(value: int) -> str | None:
    """Why a broker's time of retention is refused."""
    return "must be unlimited (-1) or, greater than or equal to 1" if value == 0 else None


def check_throttled(value: tuple[str, ...]) -> str | None:
    """Why a list of throttled replicas is refused."""
    if value in ((), ("*",)):
        return None
    for part in value:
        numbers = part.split(":")
        if len(numbers) != 2 or not all(number.isascii() and number.isdigit() for number in numbers):
            return (
                "Must be the literal '*' or a list of replicas in the following format: "
                "[partitionId]:[brokerId],[partitionId]:[brokerId],..."
            )
    return None


class TopicConfig:
    """A topic's resolved configuration. Made by `Settings.topic_config`; tests may call it with any values.

    Compared by identity: equal overrides give the same object until a broker default changes.
    """

    segment_bytes: int = option(
        "segment.bytes", INT, 1 << 30, at_least=1 << 20, falls_back_to=[("log.segment.bytes", 1)],
        doc="Size at which a partition's log goes on in a new segment file.",
    )  # fmt: skip
    segment_ms: int = option(
        "segment.ms", LONG, 7 * 24 * HOUR_MS, at_least=1,
        falls_back_to=[("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)],
        doc="Age at which a segment is closed even if it is not full, so that it can be deleted or compacted.",
    )  # fmt: skip
    segment_jitter_ms: int = option(
        "segment.jitter.ms", LONG, 0, at_least=0,
        falls_back_to=[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", HOUR_MS)],
        doc="At most this much is taken off segment.ms at random, so that partitions do not roll all at once.",
    )  # fmt: skip
    segment_index_bytes: int = option(
        "segment.index.bytes", INT, 10 << 20, at_least=4, falls_back_to=[("log.index.size.max.bytes", 1)],
        doc="Size at which a segment's index is full and the segment is closed.",
    )  # fmt: skip
    flush_messages: int = option(
        "flush.messages", LONG, LONG_MAX, at_least=1, falls_back_to=[("log.flush.interval.messages", 1)],
        doc="Records after which the log is synced to disk. Here every write is synced at once, unless "
        "kbroker.fsync.before.ack is false.",
    )  # fmt: skip
    flush_ms: int = option(
        "flush.ms", LONG, LONG_MAX, at_least=0,
        falls_back_to=[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)],
        doc="Time after which the log is synced to disk. Here every write is synced at once, unless "
        "kbroker.fsync.before.ack is false.",
    )  # fmt: skip
    retention_bytes: int = option(
        "retention.bytes", LONG, -1, falls_back_to=[("log.retention.bytes", 1)],
        doc="Size to which a partition may grow before its oldest segments are deleted; -1: any.",
    )  # fmt: skip
    retention_ms: int = option(
        "retention.ms", LONG, 7 * 24 * HOUR_MS, at_least=-1,
        falls_back_to=[("log.retention.ms", 1), ("log.retention.minutes", MINUTE_MS),
                       ("log.retention.hours", HOUR_MS)],
        doc="Age at which records are deleted, a segment at a time; -1: never.",
    )  # fmt: skip
    max_message_bytes: int = option(
        "max.message.bytes", INT, (1 << 20) + 12, at_least=0, falls_back_to=[("message.max.bytes", 1)],
        doc="Largest record batch that is taken, after compression.",
    )  # fmt: skip
    index_interval_bytes: int = option(
        "index.interval.bytes", INT, 4096, at_least=0, falls_back_to=[("log.index.interval.bytes", 1)],
        doc="Bytes of log between two entries of an index.",
    )  # fmt: skip
    delete_retention_ms: int = option(
        "delete.retention.ms", LONG, 24 * HOUR_MS, at_least=0,
        falls_back_to=[("log.cleaner.delete.retention.ms", 1)],
        doc="How long a compacted topic keeps the tombstone of a deleted key.",
    )  # fmt: skip
    min_compaction_lag_ms: int = option(
        "min.compaction.lag.ms", LONG, 0, at_least=0,
        falls_back_to=[("log.cleaner.min.compaction.lag.ms", 1)],
        doc="How long a record stays uncompacted at least.",
    )  # fmt: skip
    max_compaction_lag_ms: int = option(
        "max.compaction.lag.ms", LONG, LONG_MAX, at_least=1,
        falls_back_to=[("log.cleaner.max.compaction.lag.ms", 1)],
        doc="How long a record may stay uncompacted at most.",
    )  # fmt: skip
    file_delete_delay_ms: int = option(
        "file.delete.delay.ms", LONG, MINUTE_MS, at_least=0,
        falls_back_to=[("log.segment.delete.delay.ms", 1)],
        doc="Time between renaming a deleted file and removing it.",
    )  # fmt: skip
    min_cleanable_dirty_ratio: float = option(
        "min.cleanable.dirty.ratio", DOUBLE, 0.5, at_least=0, at_most=1,
        falls_back_to=[("log.cleaner.min.cleanable.ratio", 1)],
        doc="Share of a log that must be uncompacted before it is compacted again.",
    )  # fmt: skip
    cleanup_policy: frozenset[str] = option(
        "cleanup.policy", LIST, ("delete",), choices=("compact", "delete"),
        falls_back_to=[("log.cleanup.policy", 1)],
        doc="What happens to old records: delete them by age and size, compact them to the last of each key, or both.",
    )  # fmt: skip
    unclean_leader_election_enable: bool = option(
        "unclean.leader.election.enable", BOOLEAN, False,
        falls_back_to=[("unclean.leader.election.enable", 1)],
        doc="Whether a replica outside the in-sync set may lead. Here it never may: it would lose acknowledged records.",
    )  # fmt: skip
    min_insync_replicas: int = option(
        "min.insync.replicas", INT, 1, at_least=1, falls_back_to=[("min.insync.replicas", 1)],
        doc="Members the in-sync set must have for a produce with acks=all to be taken.",
    )  # fmt: skip
    compression_type: str = option(
        "compression.type", STRING, "producer", choices=CODECS, falls_back_to=[("compression.type", 1)],
        doc="Codec in which batches are stored; producer: as they come.",
    )  # fmt: skip
    compression_gzip_level: int = option(
        "compression.gzip.level", INT, -1, at_least=1, at_most=9, also=-1,
        falls_back_to=[("compression.gzip.level", 1)],
        doc="Level of compression where the broker compresses, because compression.type is gzip and the batch is not.",
    )  # fmt: skip
    compression_lz4_level: int = option(
        "compression.lz4.level", INT, 9, at_least=1, at_most=17, falls_back_to=[("compression.lz4.level", 1)],
        doc="Level of compression where the broker compresses, because compression.type is lz4 and the batch is not.",
    )  # fmt: skip
    compression_zstd_level: int = option(
        "compression.zstd.level", INT, 3, at_least=-131072, at_most=22,
        falls_back_to=[("compression.zstd.level", 1)],
        doc="Level of compression where the broker compresses, because compression.type is zstd and the batch is not.",
    )  # fmt: skip
    preallocate: bool = option(
        "preallocate", BOOLEAN, False, falls_back_to=[("log.preallocate", 1)],
        doc="Whether a new segment's space is taken from the disk at once. Has no effect here.",
    )  # fmt: skip
    message_timestamp_type: str = option(
        "message.timestamp.type", STRING, "CreateTime", choices=TIMESTAMP_TYPES,
        falls_back_to=[("log.message.timestamp.type", 1)],
        doc="Whether records carry the producer's time or the time of their arrival.",
    )  # fmt: skip
    message_timestamp_before_max_ms: int = option(
        "message.timestamp.before.max.ms", LONG, LONG_MAX, at_least=0,
        falls_back_to=[("log.message.timestamp.before.max.ms", 1)],
        doc="How far a record's timestamp may lie before the broker's time.",
    )  # fmt: skip
    message_timestamp_after_max_ms: int = option(
        "message.timestamp.after.max.ms", LONG, HOUR_MS, at_least=0,
        falls_back_to=[("log.message.timestamp.after.max.ms", 1)],
        doc="How far a record's timestamp may lie after the broker's time.",
    )  # fmt: skip
    leader_replication_throttled_replicas: tuple[str, ...] = option(
        "leader.replication.throttled.replicas", LIST, (), check=check_throttled,
        doc="Replicas whose replication is throttled on the leader's side.",
    )  # fmt: skip
    follower_replication_throttled_replicas: tuple[str, ...] = option(
        "follower.replication.throttled.replicas", LIST, (), check=check_throttled,
        doc="Replicas whose replication is throttled on the follower's side.",
    )  # fmt: skip
    remote_storage_enable: bool = option(
        "remote.storage.enable", BOOLEAN, False,
        doc="Tiered storage; there is none here, so only false is taken.",
    )  # fmt: skip
    local_retention_ms: int = option(
        "local.retention.ms", LONG, -2, at_least=-2, falls_back_to=[("log.local.retention.ms", 1)],
        doc="Retention of local segments under tiered storage. Has no effect here.",
    )  # fmt: skip
    local_retention_bytes: int = option(
        "local.retention.bytes", LONG, -2, at_least=-2, falls_back_to=[("log.local.retention.bytes", 1)],
        doc="Local size under tiered storage. Has no effect here.",
    )  # fmt: skip
    remote_log_copy_disable: bool = option(
        "remote.log.copy.disable", BOOLEAN, False, doc="Part of tiered storage. Has no effect here."
    )
    remote_log_delete_on_disable: bool = option(
        "remote.log.delete.on.disable", BOOLEAN, False, doc="Part of tiered storage. Has no effect here."
    )
    internal_segment_bytes: int | None = option(
        "internal.segment.bytes", INT, None, internal=True,
        doc="For tests: takes the place of segment.bytes, without its lower bound.",
    )  # fmt: skip

    def __init__(self, **values: Any) -> None:
        fields = dict(DEFAULTS)
        unknown = values.keys() - fields.keys()
        if unknown:
            raise TypeError(f"no such topic config: {', '.join(sorted(unknown))}")
        fields.update(values)
        if fields["internal_segment_bytes"] is not None:
            fields["segment_bytes"] = fields["internal_segment_bytes"]
        fields["retention_ms"] = max(fields["retention_ms"], -1)
        fields["cleanup_policy"] = frozenset(fields["cleanup_policy"])
        self.__dict__.update(fields)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a TopicConfig does not change: {name}")

    @property
    def compacted(self) -> bool:
        """Whether the last record of each key is kept."""
        return "compact" in self.cleanup_policy

    def __repr__(self) -> str:
        changed = {name: value for name, value in vars(self).items() if value != _COMPARED[name]}
        return f"TopicConfig({', '.join(f'{name}={value!r}' for name, value in changed.items())})"


TOPIC_OPTIONS = options_of(TopicConfig)
DEFAULTS = {row.attribute: row.default for row in TOPIC_OPTIONS.values()}
_COMPARED = {**DEFAULTS, "cleanup_policy": frozenset(DEFAULTS["cleanup_policy"])}
