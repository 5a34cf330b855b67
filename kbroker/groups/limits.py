"""What a group allows: the broker's settings for it, and limits that Kafka has no setting for. Numbers only."""

from __future__ import annotations

from typing import NamedTuple

# A new member knows its id only from the answer to its join, so it cannot send heartbeats while it waits, and nobody
# sees it disconnect. One that still waits then is taken for gone; a live one simply joins again.
NEW_MEMBER_JOIN_TIMEOUT_S = 300.0

# Members that were given an id and have not come back with it (KIP-394). They cost a line each and hold a rebalance up
# until their session ends. Beyond it the oldest is forgotten: should it still come, it is given another id.
PENDING_MAX = 10_000

# Ways to divide partitions that a member may offer; clients offer one to four. Each generation looks through those of all
# its members on the loop, and a static member stays for many without saying them again. Beyond it there is none in common.
PROTOCOLS_MAX = 1_000

# An id begins with the client's own words (its client id or instance id). It goes into answers and records, where a
# string has 32,767 bytes at most.
MEMBER_ID_PREFIX_MAX = 1_000

# Sessions that end within this time of each other end together, so that thousands do not take a walk over all members
# each. A session may last longer by as much. It grows with the group, as the walk does: a small one is punctual, as tools
# expect that wait for a session and then delete the group.
SESSION_GRAIN_PER_MEMBER_S = 20e-6
SESSION_GRAIN_S_MAX = 0.1

# Static members may all be away when the time to join is over; then the group waits on. Not in a tight loop, if their
# rebalance timeout is 0.
POSTPONE_MIN_S = 1.0


class GroupLimits(NamedTuple):
    """The broker's settings: group.{min,max}.session.timeout.ms, group.initial.rebalance.delay.ms, group.max.size."""

    session_timeout_ms_min: int = 6_000
    session_timeout_ms_max: int = 1_800_000
    initial_rebalance_delay_ms: int = 3_000
    size_max: int = 2**31 - 1
