"""Which compacted log is cleaned next, and its round: segment by segment, off the loop, each swapped as it is made.

Chooses as Kafka does: the largest share of dirty bytes first, at once where `max.compaction.lag.ms` is over. What is
compacted and how is in `storage.cleaning`; loaded with the first round, a broker without compacted topics never needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from kbroker.config import Settings
from kbroker.config.options import LONG_MAX
from kbroker.errors import KafkaError
from kbroker.observe import logs
from kbroker.replication.partition import Partition
from kbroker.replication.replicas import Replicas
from kbroker.seams import Clock, Threads, Timer
from kbroker.storage import retention, scan
from kbroker.storage.directory import LogDirectory

if TYPE_CHECKING:
    from kbroker.storage.cleaning import Cleaned, Job, Outcome
    from kbroker.storage.rounds import Round
    from kbroker.storage.segment import Segment

log = logs.get_logger("replication")

# Looks are not closer together than this: each of them goes through all open partitions, in 2 ms where 10,000 are open.
BACKOFF_MS_MIN = 50

# After a look that asked for a checkpoint there is another one: by then it is on the disk, and the log is compacted when
# one that was saved already would be, not a whole backoff later. Where it takes longer, the next look finds it.
CHECKPOINT_S = 1.0


class Dirty(NamedTuple):
    """A log that could be cleaned."""

    partition: Partition
    first: int  # number of the first segment that is cleaned
    last: int  # number of the segment after the last one
    first_dirty: int
    dirty_bytes: int
    bytes: int
    overdue: bool  # max.compaction.lag.ms is over

    @property
    def ratio(self) -> float:
        """The share of it that is dirty."""
        return self.dirty_bytes / self.bytes if self.bytes else 0.0

    @property
    def due(self) -> bool:
        """Whether it is to be cleaned."""
        if not self.dirty_bytes:
            return False
        return self.overdue or self.ratio > self.partition.config.min_cleanable_dirty_ratio


class Cleaner:
    """Looks for dirty logs each `log.cleaner.backoff.ms`, and has up to `log.cleaner.threads` cleaned at the same time."""

    def __init__(
        self,
        partitions: Replicas,
        directory: LogDirectory,
        *,
        settings: Settings,
        clock: Clock,
        threads: Threads,
        in_process: bool,
    ) -> None:
        self._partitions = partitions
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._threads = threads
        self._in_process = in_process  # rounds run in processes of their own
        self._timer: Timer | None = None
        self._backoff_ms = 0  # as the timer was set
        self._again: Timer | None = None  # the look after a checkpoint
        self._waits_for_checkpoint = False
        self._rounds: dict[Partition, _Cleaning] = {}
        self._put_off: set[Partition] = set()  # until the next look: the disk was full, or nothing came of it
        self._uncleanable: set[Partition] = set()  # damaged: not tried again

    def start(self) -> None:
        """Begin to look."""
        if self._settings.log_cleaner_enable:
            self._later()

    def follow_settings(self) -> None:
        """The time between two looks may be another one."""
        if self._timer is not None and self._backoff_ms != self._settings.log_cleaner_backoff_ms:
            self._timer.cancel()
            self._later()

    def stop(self) -> None:
        """No more rounds; those in progress end where they are."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._again is not None:
            self._again.cancel()
            self._again = None
        for cleaning in list(self._rounds.values()):
            cleaning.stop()
        self._rounds.clear()

    def _later(self) -> None:
        self._backoff_ms = self._settings.log_cleaner_backoff_ms
        seconds = max(self._backoff_ms, BACKOFF_MS_MIN) * 0.001
        self._timer = self._clock.call_at(self._clock.monotonic() + seconds, self._look)

    def _look(self) -> None:
        self._later()
        self._put_off.clear()
        for cleaning in self._rounds.values():
            if not cleaning.wanted:
                cleaning.stop()
        self._uncleanable = {each for each in self._uncleanable if each.gone is None}
        self._waits_for_checkpoint = False
        self._begin()
        if self._waits_for_checkpoint and self._again is None:
            self._again = self._clock.call_at(self._clock.monotonic() + CHECKPOINT_S, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self._begin()

    def _begin(self) -> None:
        """Start rounds while there are free places and dirty logs."""
        if self._timer is None or self._directory.failed is not None:
            return
        free = self._settings.log_cleaner_threads - len(self._rounds)
        if free <= 0:
            return
        now_ms = self._clock.wall_ms()
        due = [found for each in self._candidates() if (found := self._due(each, now_ms)) is not None]
        due.sort(key=lambda found: found.ratio, reverse=True)
        for found in due[:free]:
            self._clean(found, now_ms)

    def _candidates(self) -> list[Partition]:
        # by name: the round of a deleted topic works in the folder of the one that was made in its place
        at_work = {each.tp for each in self._rounds}
        return [
            each
            for each in self._partitions
            if each.config.compacted
            and each.gone is None
            and each.tp not in at_work
            and each not in self._put_off
            and each not in self._uncleanable
        ]

    def _due(self, partition: Partition, now_ms: int) -> Dirty | None:
        """What is to be cleaned of a partition's log: only what a checkpoint has saved, which is asked for.

        Behind a recovery point leader epochs are read from the batches, and these would not be all there any more.
        """
        plog = partition.log
        limit = min(partition.last_stable_offset, plog.flushed)
        found = _look_at(partition, now_ms, limit)
        if found is None or not found.due:
            return None
        if plog.segments[found.last].base > plog.saved_to:
            self._directory.checkpoint()
            self._waits_for_checkpoint = True
            found = _look_at(partition, now_ms, plog.saved_to)
        return found if found is not None and found.due else None

    def _clean(self, dirty: Dirty, now_ms: int) -> None:
        partition, settings = dirty.partition, self._settings
        try:
            job = _job(dirty, settings, now_ms)
        except (OSError, scan.Damaged, KafkaError) as error:
            log.warning("log not compacted", partition=str(partition.tp), error=str(error))
            self._put_off.add(partition)
            return
        cleaning = _Cleaning(partition, job, self._round(job), self._threads, self._clock, self._ended)
        self._rounds[partition] = cleaning
        cleaning.go_on()

    def _round(self, job: Job) -> Round:
        settings = self._settings
        per_second = settings.log_cleaner_io_max_bytes_per_second / settings.log_cleaner_threads
        if self._in_process:
            from kbroker.storage.cleaning_process import ProcessRound

            return ProcessRound(job, per_second)
        from kbroker.storage.rounds import ThreadRound

        return ThreadRound(self._directory.disk, job, per_second, self._clock.monotonic)

    def _ended(self, cleaning: _Cleaning, end: int | None, error: BaseException | None) -> None:
        """A round is over; `end`: up to there the log is clean."""
        partition = cleaning.partition
        if self._rounds.get(partition) is not cleaning:
            return  # stopped
        del self._rounds[partition]
        if end is None or end <= cleaning.job.first_dirty:
            self._put_off.add(partition)
        if end is not None and partition.gone is None:
            self._directory.cleaned.move(partition.tp, end)
        if error is not None and cleaning.wanted:
            self._tell(partition, error)
        self._begin()

    def _tell(self, partition: Partition, error: BaseException) -> None:
        from kbroker.storage.cleaning import Uncleanable

        if isinstance(error, Uncleanable):
            self._uncleanable.add(partition)
            log.error("log cannot be compacted", partition=str(partition.tp), why=str(error))
        elif isinstance(error, OSError):
            log.warning("log not compacted, later again", partition=str(partition.tp), error=str(error))
        else:
            self._uncleanable.add(partition)
            log.error("compaction broke", partition=str(partition.tp), exc_info=error)


class _Cleaning:
    """One round: asks for a segment, swaps it, asks for the next. One of its steps is in progress at any time."""

    def __init__(
        self,
        partition: Partition,
        job: Job,
        round_: Round,
        threads: Threads,
        clock: Clock,
        ended: Callable[[_Cleaning, int | None, BaseException | None], None],
    ) -> None:
        self.partition = partition
        self.job = job
        self._round = round_
        self._threads = threads
        self._clock = clock
        self._ended = ended
        self._truncations = partition.log.truncations
        self._began = clock.monotonic()
        self._before = self._after = (
            0  # bytes of the segments that were replaced, and of those in their place
        )

    def go_on(self) -> None:
        """Have the next segment made."""
        self._threads.run(self._round.next, self._got)

    @property
    def wanted(self) -> bool:
        """Whether its topic is still there, and compacted."""
        return self.partition.gone is None and self.partition.config.compacted

    def stop(self) -> None:
        """Let it end."""
        self._round.stop()

    def _got(self, outcome: Outcome | None, error: BaseException | None) -> None:
        from kbroker.storage.cleaning import Cleaned

        if outcome is None:
            return self._end(None, error)
        if isinstance(outcome, Cleaned):
            if not self.wanted:
                return self._end(None, None)
            return self.partition.log.swap(outcome, self._truncations, partial(self._swapped, outcome))
        seconds = self._clock.monotonic() - self._began
        log.info(
            "log compacted",
            partition=str(self.partition.tp),
            up_to=outcome.end,
            bytes_before=self._before,
            bytes_after=self._after,
            bytes_read=outcome.bytes_read,
            seconds=round(seconds, 3),
        )
        self._end(outcome.end, None)

    def _swapped(self, cleaned: Cleaned, done: bool) -> None:
        if not done:
            return self._end(None, None)
        self._before += sum(size for _, size in cleaned.replaced)
        self._after += cleaned.size
        self.go_on()

    def _end(self, end: int | None, error: BaseException | None) -> None:
        if end is None:
            self._round.stop()
            work = partial(_tidy, self._round, self.partition)
            self._threads.run(work, lambda _, failed: self._ended(self, None, error or failed))
        else:
            self._ended(self, end, error)


def _tidy(round_: Round, partition: Partition) -> None:
    """In a thread: remove what a round made that came to nothing."""
    from kbroker.storage.cleaning import remove_cleaned

    round_.close()
    remove_cleaned(partition.log.directory.disk, partition.log.folder)


def _look_at(partition: Partition, now_ms: int, limit: int) -> Dirty | None:
    """What of a partition's log could be cleaned below offset `limit`."""
    plog, config = partition.log, partition.config
    segments = plog.segments
    if plog.broken is not None or plog.swap_pending is not None or not segments:
        return None
    try:
        _roll_overdue(partition, now_ms)
        first = retention.below(segments, plog.start)
        dirty_from = plog.directory.cleaned.offsets.get(partition.tp, 0)
        if dirty_from > plog.end or dirty_from < plog.start:
            dirty_from = plog.start
        clean = dirty = 0
        overdue = False
        last = first
        while last + 1 < len(segments) and (end := segments[last + 1].base) <= limit:
            segment = segments[last]
            if end <= dirty_from:
                clean += segment.size
            else:
                if (
                    config.min_compaction_lag_ms > 0
                    and _newest(partition, last) > now_ms - config.min_compaction_lag_ms
                ):
                    break
                dirty += segment.size
                if config.max_compaction_lag_ms < LONG_MAX and not overdue:
                    overdue = now_ms - _oldest(partition, last) > config.max_compaction_lag_ms
            last += 1
    except (OSError, scan.Damaged, KafkaError) as error:
        log.warning("log not looked at for compaction", partition=str(partition.tp), error=str(error))
        return None
    return Dirty(partition, first, last, dirty_from, dirty, clean + dirty, overdue)


def _newest(partition: Partition, number: int) -> int:
    return _with_times(partition, number).max_timestamp


def _oldest(partition: Partition, number: int) -> int:
    """The time of a segment's first batch, as Kafka estimates the oldest."""
    segment = _with_times(partition, number)
    return segment.first_timestamp if segment.first_timestamp >= 0 else LONG_MAX


def _with_times(partition: Partition, number: int) -> Segment:
    segment = partition.log.segments[number]
    if not segment.timestamps_known:
        partition.log.directory.indexes.keep(segment)
    return segment


def _roll_overdue(partition: Partition, now_ms: int) -> None:
    """Close the newest segment where its records may wait no longer: what is in it cannot be compacted."""
    lag, plog = partition.config.max_compaction_lag_ms, partition.log
    active = plog.segments[-1]
    if lag == LONG_MAX or not active.size or plog.flushed != plog.end:
        return
    if not active.timestamps_known:
        active.load()  # nothing was appended since the start
    if 0 <= active.first_timestamp < now_ms - lag:
        plog.roll()


def _job(dirty: Dirty, settings: Settings, now_ms: int) -> Job:
    from kbroker.storage.cleaning import Job

    plog, config = dirty.partition.log, dirty.partition.config
    segments = plog.segments
    producers = {
        producer_id: (known.sent[-1].last_offset if known.sent else -1, known.epoch)
        for producer_id, known in plog.producers.producers.items()
    }
    return Job(
        folder=plog.folder,
        segments=[(each.base, each.size) for each in segments[dirty.first : dirty.last] if each.size],
        first_dirty=dirty.first_dirty,
        upper=segments[dirty.last].base,
        now_ms=now_ms,
        delete_retention_ms=config.delete_retention_ms,
        segment_bytes=config.segment_bytes,
        index_interval_bytes=config.index_interval_bytes,
        segment_index_bytes=config.segment_index_bytes,
        producers=producers,
        buffer_bytes=settings.log_cleaner_dedupe_buffer_size // max(settings.log_cleaner_threads, 1),
        decompressed_max=settings.kbroker_batch_decompressed_bytes_max,
    )
