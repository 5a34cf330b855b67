"""One log directory: identity, lock, the logs in it, checkpoints, the clean-shutdown marker, its failed state.

Knows folders and files by Kafka's names; knows nothing of leaders, replicas or topics beyond their ids.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from kbroker.errors import DiskFailed, ErrorCode, KafkaError
from kbroker.model import TopicPartition
from kbroker.seams import Clock, Disk, Lock, Random, Threads
from kbroker.storage.flusher import Flusher
from kbroker.storage.indexes import Indexes
from kbroker.storage.log import PartitionLog
from kbroker.turn import Turn

if TYPE_CHECKING:
    from kbroker.config import TopicConfig

log = structlog.get_logger(__name__)

# Free bytes at which a directory that was full takes writes again: less, and the next batch would fill it once more.
FREE_BYTES_AGAIN = 16 * 1024 * 1024
FREE_CHECK_S = 1.0  # how often a full directory is looked at


class LogDirectory:
    """The partitions' folders under one path."""

    def __init__(
        self,
        path: str,
        *,
        disk: Disk,
        clock: Clock,
        turn: Turn,
        threads: Threads,
        random: Random,
        fsync: bool,
    ) -> None:
        self.path = path
        self.disk = disk
        self.clock = clock
        self.turn = turn
        self.threads = threads
        self.random = random
        self.fsync = fsync
        self.logs: dict[TopicPartition, PartitionLog] = {}
        self.indexes = Indexes()
        self.flusher = Flusher(turn, threads, self._flush_failed)
        self.failed: DiskFailed | None = None  # a write or fsync failed: no more writes until the next start
        self.refusing = False  # failed, or full
        self._full_checked = 0.0
        self._lock: Lock | None = None

    def jitter_ms(self, config: TopicConfig) -> int:
        """By how much a new segment rolls earlier than `segment.ms`."""
        jitter = min(config.segment_jitter_ms, config.segment_ms)
        return self.random.randrange(0, jitter) if jitter > 0 else 0

    def log(self, tp: TopicPartition, topic_id: UUID, config: TopicConfig) -> PartitionLog:
        """The log of a partition: opened, recovering what must be, or a new one whose folder follows its first write."""
        known = self.logs.get(tp)
        if known is not None:
            return known
        opened = PartitionLog(self, tp, topic_id, config, f"{self.path}/{tp}")
        self.logs[tp] = opened
        return opened

    def check_writable(self) -> None:
        """KafkaError KAFKA_STORAGE_ERROR while the directory takes no writes."""
        if self.failed is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(self.failed))
        if self.refusing:
            now = self.clock.monotonic()
            if now - self._full_checked >= FREE_CHECK_S:
                self._full_checked = now
                if self.disk.free_bytes(self.path) >= FREE_BYTES_AGAIN:
                    self.refusing = False
                    log.info("log directory has space again", path=self.path)
                    return
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, self._full_text())

    def write_failed(self, which: PartitionLog, error: Exception) -> KafkaError:
        """A write of one of the logs failed. Returns what to tell whoever wrote."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            if not self.refusing:
                log.error("log directory full", path=self.path, partition=str(which.tp), error=str(error))
            self.refusing = True
            self._full_checked = self.clock.monotonic()
            return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, self._full_text())
        self.fail(f"a write of {which.tp} failed: {error}")
        return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(self.failed))

    def fail(self, why: str) -> None:
        """Take no more writes. It is not tried again: the system may have dropped what it could not write."""
        if self.failed is None:
            log.error("log directory failed", path=self.path, why=why)
            self.failed = DiskFailed(f"log directory {self.path} takes no writes: {why}")
        self.refusing = True

    def _flush_failed(self, error: BaseException) -> None:
        self.fail(f"an fsync failed: {error}")

    def _full_text(self) -> str:
        return f"log directory {self.path} is on a full disk; free some space"
