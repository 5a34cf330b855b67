"""The broker's options that do something here. The field is the row; `Settings` fills the fields with values.

Options that Kafka knows and that do nothing here are in `known`, read only when somebody asks for them.
"""

from __future__ import annotations

from kbroker.config.addresses import check_per_ip
from kbroker.config.options import (
    BOOLEAN,
    CLUSTER_WIDE,
    DOUBLE,
    INT,
    INT_MAX,
    LIST,
    LONG,
    LONG_MAX,
    PASSWORD,
    PER_BROKER,
    SHORT,
    STRING,
    option,
    options_of,
)
from kbroker.config.topics import CODECS, HOUR_MS, MINUTE_MS, TIMESTAMP_TYPES, check_retention

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


def check_folder(folders: tuple[str, ...]) -> str | None:
    """Why the folders of the data are refused: an empty text must not stand for the default one."""
    return None if folders else "it names no folder"


class BrokerOptions:
    """The rows, by subject."""

    # Who and where
    node_id: int = option("node.id", INT, 0, at_least=0, doc="Number of this broker, unique in its cluster.")
    broker_id: int = option("broker.id", INT, -1, doc="Older name of node.id, used where that is not set.")
    broker_rack: str | None = option(
        "broker.rack", STRING, None, doc="Where this broker stands; replicas are spread over racks."
    )
    log_dir_option: tuple[str, ...] | None = option(
        "log.dir", LIST, None, check=check_folder, doc="The folder of the data, where log.dirs is not set."
    )
    log_dirs_option: tuple[str, ...] | None = option(
        "log.dirs", LIST, None, check=check_folder, doc="The folder of the data: one."
    )

    # Listeners
    listeners_option: tuple[str, ...] = option(
        "listeners", LIST, ("PLAINTEXT://localhost:9092",),
        doc="Addresses to listen on, NAME://host:port; no host: all. localhost is 127.0.0.1 and, where present, ::1.",
    )  # fmt: skip
    advertised_listeners_option: tuple[str, ...] | None = option(
        "advertised.listeners", LIST, None, doc="Addresses told to clients; where not set, those listened on."
    )
    protocol_map_option: str = option(
        "listener.security.protocol.map", STRING,
        "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
        doc="Security protocol of each listener, NAME:PROTOCOL.",
    )  # fmt: skip
    controller_listener_names: tuple[str, ...] | None = option(
        "controller.listener.names",
        LIST,
        None,
        doc="Listeners of Kafka's controllers: they are ignored here.",
    )
    inter_broker_listener_name: str | None = option(
        "inter.broker.listener.name", STRING, None, doc="Listener by which brokers reach each other."
    )
    security_inter_broker_protocol: str = option(
        "security.inter.broker.protocol", STRING, "PLAINTEXT", choices=PROTOCOLS,
        doc="Protocol between brokers, where inter.broker.listener.name is not set.",
    )  # fmt: skip

    # Limits
    socket_request_max_bytes: int = option(
        "socket.request.max.bytes", INT, 100 << 20, at_least=1, doc="Largest request that is read."
    )
    socket_send_buffer_bytes: int = option(
        "socket.send.buffer.bytes", INT, -1, at_least=-1,
        doc="SO_SNDBUF of connections; -1: the system chooses, and lets it grow.",
    )  # fmt: skip
    socket_receive_buffer_bytes: int = option(
        "socket.receive.buffer.bytes", INT, -1, at_least=-1,
        doc="SO_RCVBUF of connections; -1: the system chooses, and lets it grow.",
    )  # fmt: skip
    max_connections: int = option(
        "max.connections", INT, INT_MAX, at_least=0, dynamic=CLUSTER_WIDE, doc="Connections to this broker."
    )
    max_connections_per_ip: int = option(
        "max.connections.per.ip", INT, INT_MAX, at_least=0, dynamic=CLUSTER_WIDE,
        doc="Connections from one address.",
    )  # fmt: skip
    max_connections_per_ip_overrides: str = option(
        "max.connections.per.ip.overrides", STRING, "", check=check_per_ip, dynamic=CLUSTER_WIDE,
        doc="Connections from certain addresses, in place of max.connections.per.ip: address:number, comma between.",
    )  # fmt: skip
    connections_max_idle_ms: int = option(
        "connections.max.idle.ms", LONG, 10 * MINUTE_MS, doc="A connection idle for longer is closed."
    )
    queued_max_request_bytes: int = option(
        "queued.max.request.bytes", LONG, -1,
        doc="Bytes of requests held in memory, over all connections. -1: a quarter of the machine's memory, at least "
        "128 MiB and at most 1 GiB; in an embedded broker 128 MiB.",
    )  # fmt: skip
    socket_listen_backlog_size: int = option(
        "socket.listen.backlog.size",
        INT,
        50,
        at_least=1,
        inert=True,
        doc="Connections that wait to be accepted. Has no effect here: 4096 may wait.",
    )
    quota_window_num: int = option(
        "quota.window.num", INT, 11, at_least=1,
        doc="Windows over which what clients with quotas use is measured.",
    )  # fmt: skip
    quota_window_size_seconds: int = option(
        "quota.window.size.seconds", INT, 1, at_least=1, doc="How long each of quota.window.num is."
    )
    controller_quota_window_num: int = option(
        "controller.quota.window.num", INT, 11, at_least=1,
        doc="Windows whose changes of partitions a client with such a quota may make at once.",
    )  # fmt: skip
    controller_quota_window_size_seconds: int = option(
        "controller.quota.window.size.seconds", INT, 1, at_least=1,
        doc="How long each of controller.quota.window.num is.",
    )  # fmt: skip
    fetch_max_bytes: int = option(
        "fetch.max.bytes", INT, 55 << 20, at_least=1024, doc="Most bytes in the answer to one fetch."
    )
    max_incremental_fetch_session_cache_slots: int = option(
        "max.incremental.fetch.session.cache.slots", INT, 1000, at_least=0, doc="Fetch sessions kept."
    )

    # Topics
    auto_create_topics_enable: bool = option(
        "auto.create.topics.enable", BOOLEAN, True,
        doc="Whether a topic that a client asks for is created when it does not exist.",
    )  # fmt: skip
    delete_topic_enable: bool = option(
        "delete.topic.enable", BOOLEAN, True, doc="Whether topics can be deleted."
    )
    num_partitions: int = option("num.partitions", INT, 1, at_least=1, doc="Partitions of a new topic.")
    default_replication_factor: int = option(
        "default.replication.factor", INT, 1, doc="Replicas of a new topic's partitions."
    )
    min_insync_replicas: int = option(
        "min.insync.replicas", INT, 1, at_least=1, dynamic=CLUSTER_WIDE,
        doc="Members the in-sync set must have for a produce with acks=all to be taken.",
    )  # fmt: skip
    unclean_leader_election_enable: bool = option(
        "unclean.leader.election.enable", BOOLEAN, False, dynamic=CLUSTER_WIDE,
        inert=True, doc="Whether a replica outside the in-sync set may lead. Has no effect here: it never may.",
    )  # fmt: skip
    message_max_bytes: int = option(
        "message.max.bytes", INT, (1 << 20) + 12, at_least=0, dynamic=CLUSTER_WIDE,
        doc="Largest record batch that is taken, after compression.",
    )  # fmt: skip
    compression_type: str = option(
        "compression.type", STRING, "producer", choices=CODECS, dynamic=CLUSTER_WIDE,
        doc="Codec in which batches are stored; producer: as they come.",
    )  # fmt: skip
    compression_gzip_level: int = option(
        "compression.gzip.level", INT, -1, at_least=1, at_most=9, also=-1, dynamic=CLUSTER_WIDE,
        doc="Level of compression when compression.type is gzip.",
    )  # fmt: skip
    compression_lz4_level: int = option(
        "compression.lz4.level", INT, 9, at_least=1, at_most=17, dynamic=CLUSTER_WIDE,
        doc="Level of compression when compression.type is lz4.",
    )  # fmt: skip
    compression_zstd_level: int = option(
        "compression.zstd.level", INT, 3, at_least=-131072, at_most=22, dynamic=CLUSTER_WIDE,
        doc="Level of compression when compression.type is zstd.",
    )  # fmt: skip

    # Log: defaults of topics
    log_segment_bytes: int = option(
        "log.segment.bytes",
        INT,
        1 << 30,
        at_least=1 << 20,
        dynamic=CLUSTER_WIDE,
        doc="Size of a segment file.",
    )
    log_roll_ms: int | None = option(
        "log.roll.ms", LONG, None, at_least=1, dynamic=CLUSTER_WIDE,
        doc="Age at which a segment is closed; where not set, log.roll.hours.",
    )  # fmt: skip
    log_roll_hours: int = option(
        "log.roll.hours", INT, 168, at_least=1, doc="Age in hours at which a segment is closed."
    )
    log_roll_jitter_ms: int | None = option(
        "log.roll.jitter.ms", LONG, None, at_least=0, dynamic=CLUSTER_WIDE,
        doc="Most that is taken off the age at random; where not set, log.roll.jitter.hours.",
    )  # fmt: skip
    log_roll_jitter_hours: int = option(
        "log.roll.jitter.hours", INT, 0, at_least=0, doc="Most hours that are taken off the age at random."
    )
    log_retention_ms: int | None = option(
        "log.retention.ms", LONG, None, check=check_retention, dynamic=CLUSTER_WIDE,
        doc="Age at which records are deleted, -1: never; where not set, log.retention.minutes.",
    )  # fmt: skip
    log_retention_minutes: int | None = option(
        "log.retention.minutes", INT, None, check=check_retention,
        doc="Age in minutes at which records are deleted; where not set, log.retention.hours.",
    )  # fmt: skip
    log_retention_hours: int = option(
        "log.retention.hours",
        INT,
        168,
        check=check_retention,
        doc="Age in hours at which records are deleted.",
    )
    log_retention_bytes: int = option(
        "log.retention.bytes", LONG, -1, dynamic=CLUSTER_WIDE,
        doc="Size to which a partition may grow before its oldest segments are deleted; -1: any.",
    )  # fmt: skip
    log_cleanup_policy: tuple[str, ...] = option(
        "log.cleanup.policy", LIST, ("delete",), choices=("compact", "delete"), dynamic=CLUSTER_WIDE,
        doc="Delete old records by age and size, compact them to the last of each key, or both.",
    )  # fmt: skip
    log_index_size_max_bytes: int = option(
        "log.index.size.max.bytes", INT, 10 << 20, at_least=4, dynamic=CLUSTER_WIDE,
        doc="Size at which a segment's index is full.",
    )  # fmt: skip
    log_index_interval_bytes: int = option(
        "log.index.interval.bytes", INT, 4096, at_least=0, dynamic=CLUSTER_WIDE,
        doc="Bytes of log between two entries of an index.",
    )  # fmt: skip
    log_segment_delete_delay_ms: int = option(
        "log.segment.delete.delay.ms", LONG, MINUTE_MS, at_least=0, dynamic=CLUSTER_WIDE,
        doc="Time between renaming a deleted file and removing it.",
    )  # fmt: skip
    log_flush_interval_messages: int = option(
        "log.flush.interval.messages", LONG, LONG_MAX, at_least=1, dynamic=CLUSTER_WIDE,
        inert=True,
        doc="Records after which a log is synced. Has no effect here: every write is, unless kbroker.fsync.before.ack is "
        "false.",
    )  # fmt: skip
    log_flush_interval_ms: int | None = option(
        "log.flush.interval.ms", LONG, None, dynamic=CLUSTER_WIDE,
        inert=True,
        doc="Time after which a log is synced. Has no effect here: every write is, unless kbroker.fsync.before.ack is "
        "false.",
    )  # fmt: skip
    log_flush_scheduler_interval_ms: int = option(
        "log.flush.scheduler.interval.ms", LONG, LONG_MAX,
        inert=True, doc="Used where log.flush.interval.ms is not set. Has no effect here, as that.",
    )  # fmt: skip
    log_preallocate: bool = option(
        "log.preallocate", BOOLEAN, False, dynamic=CLUSTER_WIDE, inert=True,
        doc="Whether a new segment's space is taken from the disk at once. Has no effect here.",
    )  # fmt: skip
    log_message_timestamp_type: str = option(
        "log.message.timestamp.type", STRING, "CreateTime", choices=TIMESTAMP_TYPES, dynamic=CLUSTER_WIDE,
        doc="Whether records carry the producer's time or the time of their arrival.",
    )  # fmt: skip
    log_message_timestamp_before_max_ms: int = option(
        "log.message.timestamp.before.max.ms", LONG, LONG_MAX, at_least=0, dynamic=CLUSTER_WIDE,
        doc="How far a record's timestamp may lie before the broker's time.",
    )  # fmt: skip
    log_message_timestamp_after_max_ms: int = option(
        "log.message.timestamp.after.max.ms", LONG, HOUR_MS, at_least=0, dynamic=CLUSTER_WIDE,
        doc="How far a record's timestamp may lie after the broker's time.",
    )  # fmt: skip
    log_local_retention_ms: int = option(
        "log.local.retention.ms", LONG, -2, at_least=-2, dynamic=CLUSTER_WIDE, inert=True,
        doc="Part of tiered storage. Has no effect here.",
    )  # fmt: skip
    log_local_retention_bytes: int = option(
        "log.local.retention.bytes", LONG, -2, at_least=-2, dynamic=CLUSTER_WIDE, inert=True,
        doc="Part of tiered storage. Has no effect here.",
    )  # fmt: skip
    log_cleaner_enable: bool = option(
        "log.cleaner.enable", BOOLEAN, True, doc="Whether logs are compacted at all."
    )
    log_cleaner_threads: int = option(
        "log.cleaner.threads", INT, 1, at_least=0, dynamic=CLUSTER_WIDE,
        doc="Logs that are compacted at the same time, each by a process of its own.",
    )  # fmt: skip
    log_cleaner_backoff_ms: int = option(
        "log.cleaner.backoff.ms", LONG, 15_000, at_least=0, dynamic=CLUSTER_WIDE,
        doc="Time between two looks for logs that should be compacted.",
    )  # fmt: skip
    log_cleaner_dedupe_buffer_size: int = option(
        "log.cleaner.dedupe.buffer.size", LONG, 128 << 20, dynamic=CLUSTER_WIDE,
        doc="Memory for the keys of the logs that are being compacted; one with more of them takes several rounds.",
    )  # fmt: skip
    log_cleaner_io_max_bytes_per_second: float = option(
        "log.cleaner.io.max.bytes.per.second", DOUBLE, 1.7976931348623157e308, dynamic=CLUSTER_WIDE,
        doc="Bytes that compaction may read and write per second, over all its processes.",
    )  # fmt: skip
    log_cleaner_delete_retention_ms: int = option(
        "log.cleaner.delete.retention.ms", LONG, 24 * HOUR_MS, at_least=0, dynamic=CLUSTER_WIDE,
        doc="How long a compacted topic keeps the tombstone of a deleted key.",
    )  # fmt: skip
    log_cleaner_min_compaction_lag_ms: int = option(
        "log.cleaner.min.compaction.lag.ms", LONG, 0, at_least=0, dynamic=CLUSTER_WIDE,
        doc="How long a record stays uncompacted at least.",
    )  # fmt: skip
    log_cleaner_max_compaction_lag_ms: int = option(
        "log.cleaner.max.compaction.lag.ms", LONG, LONG_MAX, at_least=1, dynamic=CLUSTER_WIDE,
        doc="How long a record may stay uncompacted at most.",
    )  # fmt: skip
    log_cleaner_min_cleanable_ratio: float = option(
        "log.cleaner.min.cleanable.ratio", DOUBLE, 0.5, at_least=0, at_most=1, dynamic=CLUSTER_WIDE,
        doc="Share of a log that must be uncompacted before it is compacted again.",
    )  # fmt: skip

    # Log: upkeep
    log_retention_check_interval_ms: int = option(
        "log.retention.check.interval.ms", LONG, 5 * MINUTE_MS, at_least=1,
        doc="Time between two rounds that look for segments to delete.",
    )  # fmt: skip
    log_initial_task_delay_ms: int = option(
        "log.initial.task.delay.ms",
        LONG,
        30_000,
        at_least=0,
        internal=True,
        inert=True,
        doc="Time from the start to the first round. Has no effect here: it is that between two rounds.",
    )
    log_flush_offset_checkpoint_interval_ms: int = option(
        "log.flush.offset.checkpoint.interval.ms", INT, MINUTE_MS, at_least=0,
        doc="Time between two writings of recovery-point-offset-checkpoint.",
    )  # fmt: skip
    log_flush_start_offset_checkpoint_interval_ms: int = option(
        "log.flush.start.offset.checkpoint.interval.ms", INT, MINUTE_MS, at_least=0,
        inert=True,
        doc="Time between two writings of log-start-offset-checkpoint. Has no effect: all are written together.",
    )  # fmt: skip
    replica_high_watermark_checkpoint_interval_ms: int = option(
        "replica.high.watermark.checkpoint.interval.ms", LONG, 5000,
        inert=True,
        doc="Time between two writings of replication-offset-checkpoint. Has no effect: all are written together.",
    )  # fmt: skip
    num_recovery_threads_per_data_dir: int = option(
        "num.recovery.threads.per.data.dir", INT, 2, at_least=1, dynamic=CLUSTER_WIDE,
        inert=True, doc="Threads that recover logs at a start. Has no effect here: one does.",
    )  # fmt: skip
    producer_id_expiration_ms: int = option(
        "producer.id.expiration.ms", INT, 24 * HOUR_MS, at_least=1, dynamic=CLUSTER_WIDE,
        doc="How long a partition remembers an idle idempotent producer.",
    )  # fmt: skip
    producer_id_expiration_check_interval_ms: int = option(
        "producer.id.expiration.check.interval.ms", INT, 10 * MINUTE_MS, at_least=1, internal=True,
        inert=True, doc="Time between two rounds that forget idle producers. Has no effect here: retention's rounds do.",
    )  # fmt: skip

    # Groups
    group_min_session_timeout_ms: int = option(
        "group.min.session.timeout.ms", INT, 6000, doc="Shortest session timeout that a member may ask for."
    )
    group_max_session_timeout_ms: int = option(
        "group.max.session.timeout.ms", INT, 30 * MINUTE_MS,
        doc="Longest session timeout that a member may ask for.",
    )  # fmt: skip
    group_initial_rebalance_delay_ms: int = option(
        "group.initial.rebalance.delay.ms", INT, 3000, doc="How long a new group waits for more members."
    )
    group_max_size: int = option("group.max.size", INT, INT_MAX, at_least=1, doc="Most members of a group.")
    offset_metadata_max_bytes: int = option(
        "offset.metadata.max.bytes", INT, 4096, doc="Longest metadata that is kept with a committed offset."
    )
    offsets_commit_timeout_ms: int = option(
        "offsets.commit.timeout.ms", INT, 5000, at_least=1,
        doc="How long a commit waits until it is on every in-sync replica.",
    )  # fmt: skip
    offsets_retention_minutes: int = option(
        "offsets.retention.minutes", INT, 7 * 24 * 60, at_least=1,
        doc="How long committed offsets are kept after a group has lost its members, or, of a group without members, "
        "after the commit.",
    )  # fmt: skip
    offsets_retention_check_interval_ms: int = option(
        "offsets.retention.check.interval.ms", LONG, 10 * MINUTE_MS, at_least=1,
        doc="Time between two rounds that forget old offsets and groups.",
    )  # fmt: skip
    offsets_topic_num_partitions: int = option(
        "offsets.topic.num.partitions", INT, 50, at_least=1, doc="Partitions of a new __consumer_offsets."
    )
    offsets_topic_replication_factor: int = option(
        "offsets.topic.replication.factor", SHORT, 3, at_least=1,
        doc="Replicas of a new __consumer_offsets; no more than there are brokers.",
    )  # fmt: skip
    offsets_topic_segment_bytes: int = option(
        "offsets.topic.segment.bytes", INT, 100 << 20, at_least=1,
        doc="Segment size of a new __consumer_offsets.",
    )  # fmt: skip
    offsets_topic_compression_codec: int = option(
        "offsets.topic.compression.codec", INT, 0, at_least=0, at_most=4,
        doc="Codec in which offsets and groups are written: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.",
    )  # fmt: skip

    # TLS; each also as listener.name.<listener>.<option>
    ssl_client_auth: str = option(
        "ssl.client.auth", STRING, "none", choices=("required", "requested", "none"), dynamic=PER_BROKER,
        doc="Whether clients must, may or do not show a certificate.",
    )  # fmt: skip
    ssl_enabled_protocols: tuple[str, ...] = option(
        "ssl.enabled.protocols", LIST, ("TLSv1.2", "TLSv1.3"), dynamic=PER_BROKER, doc="TLS versions spoken."
    )
    ssl_cipher_suites: tuple[str, ...] = option(
        "ssl.cipher.suites",
        LIST,
        (),
        dynamic=PER_BROKER,
        doc="Cipher suites offered; none: the library's choice.",
    )
    ssl_keystore_type: str = option(
        "ssl.keystore.type", STRING, "JKS", dynamic=PER_BROKER, doc="Format of the key store: PEM here."
    )
    ssl_keystore_location: str | None = option(
        "ssl.keystore.location", STRING, None, dynamic=PER_BROKER,
        doc="File with the broker's private key and certificate chain, PEM.",
    )  # fmt: skip
    ssl_keystore_password: str | None = option(
        "ssl.keystore.password", PASSWORD, None, dynamic=PER_BROKER, doc="Not used with PEM files."
    )
    ssl_keystore_key: str | None = option(
        "ssl.keystore.key", PASSWORD, None, dynamic=PER_BROKER, doc="The broker's private key itself, PEM."
    )
    ssl_keystore_certificate_chain: str | None = option(
        "ssl.keystore.certificate.chain", PASSWORD, None, dynamic=PER_BROKER,
        doc="The broker's certificate chain itself, PEM.",
    )  # fmt: skip
    ssl_key_password: str | None = option(
        "ssl.key.password", PASSWORD, None, dynamic=PER_BROKER, doc="Password of an encrypted private key."
    )
    ssl_truststore_type: str = option(
        "ssl.truststore.type", STRING, "JKS", dynamic=PER_BROKER, doc="Format of the trust store: PEM here."
    )
    ssl_truststore_location: str | None = option(
        "ssl.truststore.location", STRING, None, dynamic=PER_BROKER,
        doc="File with the certificates of the authorities that clients' certificates must come from, PEM.",
    )  # fmt: skip
    ssl_truststore_password: str | None = option(
        "ssl.truststore.password", PASSWORD, None, dynamic=PER_BROKER, doc="Not used with PEM files."
    )
    ssl_truststore_certificates: str | None = option(
        "ssl.truststore.certificates", PASSWORD, None, dynamic=PER_BROKER,
        doc="The authorities' certificates themselves, PEM.",
    )  # fmt: skip

    # Our own
    kbroker_fsync_before_ack: bool = option(
        "kbroker.fsync.before.ack", BOOLEAN, True,
        doc="Whether records are synced to disk before they are acknowledged and read. Without, a power cut loses "
        "acknowledged records.",
    )  # fmt: skip
    kbroker_batch_decompressed_bytes_max: int = option(
        "kbroker.batch.decompressed.bytes.max", INT, 16 << 20, at_least=1024,
        doc="Largest size of a batch's records after decompression.",
    )  # fmt: skip
    kbroker_produce_validation: str = option(
        "kbroker.produce.validation", STRING, "records", choices=("records", "batch"),
        doc="records: lengths and count of a batch's records are checked, as Kafka does; batch: only its header and "
        "checksum.",
    )  # fmt: skip


BROKER_OPTIONS = options_of(BrokerOptions)
