"""Rounds over the hosted partitions: retention, forgotten producers, checkpoints; in slices, so nobody waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kbroker.config import Settings
from kbroker.errors import KafkaError
from kbroker.observe import logs
from kbroker.replication.partition import Partition
from kbroker.replication.replicas import Replicas
from kbroker.seams import Clock, Timer
from kbroker.storage.directory import LogDirectory

log = logs.get_logger("replication")

# Partitions looked at in one go; most looks cost some microseconds, a deletion some hundred.
PARTITIONS_PER_SLICE = 50
# Between two slices: a round over 10,000 partitions then takes two seconds and about one per cent of the loop.
SLICE_PAUSE_SECONDS = 0.01


class Upkeep:
    """Calls `retain` on every open partition each `log.retention.check.interval.ms`, and checkpoints the directory."""

    def __init__(
        self, partitions: Replicas, directory: LogDirectory, *, settings: Settings, clock: Clock
    ) -> None:
        self._partitions = partitions
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._timers: dict[str, Timer] = {}
        self._round: Iterator[Partition] = iter(())

    def start(self) -> None:
        """Begin the rounds."""
        self._later("retention", self._settings.log_retention_check_interval_ms * 0.001, self._begin_round)
        self._later(
            "checkpoint", self._settings.log_flush_offset_checkpoint_interval_ms * 0.001, self._checkpoint
        )

    def stop(self) -> None:
        """No more rounds."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _later(self, what: str, seconds: float, call: Callable[[], None]) -> None:
        self._timers[what] = self._clock.call_at(self._clock.monotonic() + seconds, call)

    def _begin_round(self) -> None:
        self._round = iter(self._partitions)
        self._slice()

    def _slice(self) -> None:
        now_ms = self._clock.wall_ms()
        for _ in range(PARTITIONS_PER_SLICE):
            partition = next(self._round, None)
            if partition is None:
                return self._later(
                    "retention", self._settings.log_retention_check_interval_ms * 0.001, self._begin_round
                )
            if partition.gone is None:
                self._look_after(partition, now_ms)
        self._later("retention", SLICE_PAUSE_SECONDS, self._slice)

    def _look_after(self, partition: Partition, now_ms: int) -> None:
        try:
            partition.retain(now_ms)
        except (KafkaError, OSError) as error:
            log.warning("retention failed", partition=str(partition.tp), error=str(error))
        except Exception as error:  # a promise broken in one partition must not end the rounds of all
            log.error("retention broke", partition=str(partition.tp), exc_info=error)

    def _checkpoint(self) -> None:
        self._later(
            "checkpoint", self._settings.log_flush_offset_checkpoint_interval_ms * 0.001, self._checkpoint
        )
        self._directory.checkpoint()
