"""Opening a partition's folder: which segments are there, what must be checked, where a torn tail is cut.

After a clean stop all is trusted. Otherwise everything from the recovery point on is read and checked; what lies
before it was synced once and is never cut, however damaged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kbroker.observe import logs
from kbroker.storage import retention, scan
from kbroker.storage.index import OffsetIndex, TimeIndex
from kbroker.storage.segment import OFFSET_MAX, Segment
from kbroker.storage.slices import SLICE_BYTES, Slices

if TYPE_CHECKING:
    from kbroker.config import TopicConfig
    from kbroker.seams import Disk, File

log = logs.get_logger("storage")

_LEFT_OVER = (".deleted", ".cleaned", ".tmp", ".rewrite")


@dataclass(slots=True)
class Found:
    """A partition's log as it lies on the disk, mended."""

    segments: list[Segment]
    end: int = 0
    gaps: bool = False  # offsets may be missing between two batches: the topic is, or was, compacted
    checked: list[Segment] = field(default_factory=list)  # those read from the recovery point on
    written: list[File] = field(default_factory=list)  # index files made anew, not synced
    epochs: list[tuple[int, int]] = field(default_factory=list)  # as the checked batches begin them
    lost: bool = False  # something below the recovery point is gone or damaged


def open_clean(disk: Disk, folder: str, config: TopicConfig) -> Found | None:
    """What a clean stop left. None when it is not what a clean stop leaves."""
    segments = find_segments(disk, folder, config)
    if not segments:
        return Found(segments)
    while len(segments) > 1 and not segments[-1].size:
        end = _end_of(segments[-2])
        if end is None or end <= segments[-1].base:
            break
        # a roll that failed left it, and those before it went on
        segments.pop().remove()
    last = segments[-1]
    end = _end_of(last) if last.size else last.base
    return None if end is None else Found(segments, end)


def _end_of(segment: Segment) -> int | None:
    """The offset behind its last batch; None when it is damaged."""
    try:
        # most are, of ten thousand; their indexes say nothing, or are not there
        if segment.size <= segment.interval:
            return segment._load_from(OffsetIndex(), TimeIndex())[0]
        return segment.load()
    except scan.Damaged:
        return None
    finally:
        segment.unload()
        segment.release()


def recover(
    disk: Disk,
    folder: str,
    config: TopicConfig,
    *,
    point: int,
    start: int,
    fsync: bool,
    rewrite: bool = False,
    gaps: bool | None = None,
) -> Slices[Found]:
    """Check everything from offset `point` on (and the log's `start`), cut what is torn, make the indexes of it anew.

    `rewrite`: an fsync failed before the stop, so that what the page cache shows may not be on the disk and a new
    fsync would not write it: the checked segments are written again. `gaps`: it may have been compacted, today or once.
    """
    found = Found(
        find_segments(disk, folder, config, known=max(point, start)),
        gaps=config.compacted if gaps is None else gaps,
    )
    segments = found.segments
    if not segments:
        return found
    # an empty one says nothing: a roll that failed may have left it, and those before it went on
    first = max((at for at, each in enumerate(segments) if each.size and each.base <= point), default=0)
    first = max(first, retention.below(segments, start))  # some of those below were removed, perhaps
    found.end = segments[first].base
    at, taken_out = first, False
    while at < len(segments):
        segment = segments[at]
        if at > first and segment.base != found.end and not (found.gaps and segment.base > found.end):
            why = f"its first offset is {segment.base}, {found.end} is next"
            _drop(disk, folder, segments, at, found.end, why)
            taken_out = True
            break
        found.end = max(found.end, segment.base)
        found.checked.append(segment)
        try:
            short = found.gaps and at + 1 < len(segments)
            damage = yield from _check(segment, found, point, may_end_short=short)
        except scan.Damaged as error:
            _keep_damaged(disk, folder, config, found, at, point, error)
            at += 1
            continue
        if damage is not None:
            _cut(disk, folder, segments, at, damage, found.end, fsync=fsync)
            taken_out = True
            break
        at += 1
    for segment in found.checked:
        yield 0
        if rewrite:
            segment.rewrite()
        if segment.index is not None:  # it is, of a damaged one
            found.written += segment.save(closing=segment is not segments[-1])
            segment.unload()
            segment.release()
    if fsync and taken_out:
        disk.sync_dir(folder)
    return found


def find_segments(disk: Disk, folder: str, config: TopicConfig, *, known: int = OFFSET_MAX) -> list[Segment]:
    """The segments in a folder, by base offset. Tidies what was left by what was interrupted, or failed.

    The log is known to have come to offset `known`: where all are empty, to which says where it goes on.
    """
    names = disk.list(folder)
    swapped = False
    for name in names:
        path = f"{folder}/{name}"
        if name.endswith(_LEFT_OVER):
            disk.remove(path)
        elif name.endswith(".log.swap"):
            _complete_swap(disk, folder, name, config)
            swapped = True
        elif name.endswith(".swap"):
            disk.remove(path)  # indexes: made anew
    if swapped:
        names = disk.list(folder)
    bases = sorted(int(name[:-4]) for name in names if name.endswith(".log") and name[:-4].isdigit())
    segments = [Segment(disk, folder, base, disk.size(f"{folder}/{base:020d}.log"), config) for base in bases]
    kept = _first_emptied(segments, known) or segments[-1:]
    for empty in [segment for segment in segments if not segment.size and segment not in kept]:
        empty.remove()  # of a roll that failed: no hole
        segments.remove(empty)
    return segments


def _first_emptied(segments: list[Segment], known: int) -> list[Segment]:
    """The segment where the log goes on, when a power cut took all of its records from offset `known` on, or none.

    Segments below the log's start may be back, and end anywhere: neither they nor later names say where it was.
    """
    at = next((at for at, segment in enumerate(segments) if segment.base >= known), len(segments))
    if at == len(segments) or segments[at].size:
        return []
    before = [segment for segment in segments[:at] if segment.size][-1:]
    end = _end_of(before[0]) if before else known
    return [segments[at]] if end is not None and end <= segments[at].base else []


def _check(segment: Segment, found: Found, point: int, *, may_end_short: bool) -> Slices[scan.Damaged | None]:
    """Check one segment from `point` on. Returns what is wrong there; Damaged is raised for damage before it."""
    end, position = segment.recover_below(point)
    if end < point and segment.base < point and not may_end_short:
        raise scan.Damaged(position, f"it ends at offset {end}")
    found.end = max(found.end, end)
    expected, newest, gaps = found.end, found.epochs[-1][0] if found.epochs else -1, found.gaps
    stop = position + SLICE_BYTES
    try:
        for at, size, base, last, epoch, max_timestamp in scan.check(segment.file, position, segment.size):
            if base != expected and not (gaps and base > expected):
                return scan.Damaged(at, f"its offset is {base}, {expected} is next")
            if epoch != newest:
                if epoch < newest:
                    return scan.Damaged(at, f"epoch {epoch} after epoch {newest}")
                found.epochs.append((epoch, base))
                newest = epoch
            segment.took(last, at, size, max_timestamp)
            expected = last + 1
            if at >= stop:
                yield SLICE_BYTES
                stop = at + SLICE_BYTES
    except scan.Damaged as error:
        return error
    finally:
        found.end = expected
    return None


def _cut(
    disk: Disk, folder: str, segments: list[Segment], at: int, damage: scan.Damaged, end: int, *, fsync: bool
) -> None:
    """Cut a torn tail at the last whole batch. On the disk before anything is written behind it."""
    segment = segments[at]
    bytes_cut = segment.size - damage.position
    segment.file.truncate(damage.position)
    segment.size = damage.position
    if fsync:
        segment.file.sync()
    log.warning("torn tail cut", folder=folder, offset=end, bytes=bytes_cut, why=damage.why)
    if at + 1 < len(segments):
        _drop(disk, folder, segments, at + 1, end, "the segment before it was cut")


def _drop(disk: Disk, folder: str, segments: list[Segment], at: int, end: int, why: str) -> None:
    """Put the segments from number `at` on aside, the last one first: what they hold may be of use to somebody."""
    for segment in reversed(segments[at:]):
        kept = segment.put_aside() if segment.size else None
        if kept is None:
            segment.remove()
        log.warning(
            "segment cut",
            folder=folder,
            offset=end,
            base=segment.base,
            bytes=segment.size,
            why=why,
            kept=kept,
        )
    del segments[at:]


def _keep_damaged(
    disk: Disk, folder: str, config: TopicConfig, found: Found, at: int, point: int, error: scan.Damaged
) -> None:
    """Damage below the recovery point: the file stays as it is, and what comes after goes on in another segment."""
    segments = found.segments
    segment = segments[at]
    log.error(
        "log damaged below its recovery point",
        folder=folder,
        segment=segment.base,
        position=error.position,
        recovery_point=point,
        why=error.why,
    )
    found.lost = True
    if at + 1 < len(segments):
        found.end = segments[at + 1].base
        return
    found.end = max(point, segment.base + 1, found.end)  # its offsets are not given to other records
    fresh = Segment(disk, folder, found.end, 0, config)
    fresh.create(0)
    segments.append(fresh)


def _complete_swap(disk: Disk, folder: str, name: str, config: TopicConfig) -> None:
    """A compaction had made a segment and was putting it in the place of those it replaces."""
    base = int(name.removesuffix(".log.swap"))
    swap = disk.open(f"{folder}/{name}")
    last = base
    for batch in scan.walk_readable(swap, 0, swap.size):
        last = batch.last
    swap.close()
    for other in disk.list(folder):
        # one that lies behind all that stayed of it does no harm: later records of its keys follow
        if other.endswith(".log") and other[:-4].isdigit() and base <= int(other[:-4]) <= last:
            Segment(disk, folder, int(other[:-4]), 0, config).remove()
    for path in Segment(disk, folder, base, 0, config).paths[1:]:
        if disk.exists(path):  # whichever segment's it is
            disk.remove(path)
    disk.sync_dir(folder)  # none of them may be found beside the new one
    disk.rename(f"{folder}/{name}", f"{folder}/{base:020d}.log")
    disk.sync_dir(folder)
