"""Client quotas: whose limit counts, what was used of it, and who has to wait. Knows no wire layouts and no handlers.

A client beyond its limit is answered at once, with the time that it should be silent, and is not read from for that long
(KIP-219): a client that does not look at the time waits all the same. Whoever has no quota costs one look at `active`.

Bytes count as Kafka counts them, but for headers: those of records, when they arrive and when they are found for an
answer. A request's time is what the loop spends in decoding it and in its handler; writing, syncing and sending are done
for many at once and belong to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping
from hashlib import blake2b
from ipaddress import ip_address
from typing import Any, NamedTuple, Protocol

from kbroker.errors import ErrorCode, KafkaError
from kbroker.seams import Clock
from kbroker.server.mutes import Mutes
from kbroker.server.rates import Bucket, Rate, wait_of
from kbroker.server.rooms import Pausable

PRODUCE = "producer_byte_rate"
FETCH = "consumer_byte_rate"
REQUEST = "request_percentage"
MUTATION = "controller_mutation_rate"
CONNECTION = "connection_creation_rate"
USER, CLIENT_ID, IP = "user", "client-id", "ip"

# Meters kept: one for each user, client or address that has a quota and used some of it within the windows. A client
# that calls itself otherwise in each request would make one each; beyond this the one unused for longest is forgotten,
# and what it counted with it. A meter is 2 KiB at most.
METERS_MAX = 4096
# Clients whose limits are remembered, so that the eight places where one may stand are not looked at for each request.
# Beyond it all are looked up anew.
CLIENTS_MAX = 4096
# Client ids are up to 32 KiB, as their clients like; in both tables a longer one than this stands as a digest.
NAME_CHARS_MAX = 256

Entity = tuple[tuple[str, str | None], ...]
# Key of the quota; user and client id, None where all of them share it.
Whose = tuple[str, str | None, str | None]


class Asking(Protocol):
    """A request, as far as quotas look at it: a `Call`."""

    @property
    def principal(self) -> str: ...

    @property
    def client_id(self) -> str | None: ...

    @property
    def connection(self) -> Pausable | None: ...


class Limit(NamedTuple):
    """What a client may use, and with whom it shares that."""

    whose: Whose
    value: float


class Windows(NamedTuple):
    """How long usage is remembered: the sum of `number` windows."""

    number: int
    seconds: float

    @property
    def span(self) -> float:
        """All of them."""
        return self.number * self.seconds


class Quotas:
    """The quotas of this broker's clients. `load` takes them from the cluster's state."""

    def __init__(self, clock: Clock, *, windows: Windows, mutation_windows: Windows) -> None:
        self.active = False  # some user or client has a quota
        self.timed = False  # some has one of time
        self.for_addresses = False  # some address has one
        self.now = clock.monotonic
        self._windows = windows
        self._mutation_windows = mutation_windows
        self._limits: dict[tuple[str, Entity], float] = {}
        self._clients: dict[tuple[str, str | None, str], Limit | None] = {}  # (key, user, client id) -> limit
        self._meters: dict[Whose, tuple[float, Rate | Bucket]] = {}  # with the time of use, latest last
        self.mutes = Mutes(clock)

    def load(self, quotas: Mapping[Entity, Mapping[str, float]]) -> None:
        """These are the quotas from now on; what was used counts on, unless there is nobody left to have used it."""
        self._limits = {
            (key, _known(entity)): value for entity, of in quotas.items() for key, value in of.items()
        }
        keys = {key for key, _ in self._limits}
        self.active = bool(keys - {CONNECTION})
        self.timed = REQUEST in keys
        self.for_addresses = CONNECTION in keys
        self._clients.clear()
        if not self._limits:
            self._meters.clear()

    # -- whose

    def concerns(self, call: Asking) -> bool:
        """Whether this client's produce requests are counted."""
        return any(self._limit(key, call) is not None for key in (PRODUCE, REQUEST))

    def _limit(self, key: str, call: Asking) -> Limit | None:
        return self.limit_of(key, call.principal.partition(":")[2], call.client_id or "")

    def limit_of(self, key: str, user: str, client_id: str) -> Limit | None:
        """The limit that counts for a client, None where there is none."""
        short = client_id if len(client_id) <= NAME_CHARS_MAX else _digest(client_id)
        asked = (key, user, short)
        try:
            return self._clients[asked]
        except KeyError:
            if len(self._clients) >= CLIENTS_MAX:
                self._clients.clear()
            limit = self._clients[asked] = self._look_up(key, user, client_id, short)
            return limit

    def _look_up(self, key: str, user: str, client_id: str, short: str) -> Limit | None:
        # Kafka's order. A limit for a user is shared by all its clients, one for a client id by all users who name it;
        # a default is for each of those it stands for.
        for entity, whose in (
            (((CLIENT_ID, client_id), (USER, user)), (key, user, short)),
            (((CLIENT_ID, None), (USER, user)), (key, user, short)),
            (((USER, user),), (key, user, None)),
            (((CLIENT_ID, client_id), (USER, None)), (key, user, short)),
            (((CLIENT_ID, None), (USER, None)), (key, user, short)),
            (((USER, None),), (key, user, None)),
            (((CLIENT_ID, client_id),), (key, None, short)),
            (((CLIENT_ID, None),), (key, None, short)),
        ):
            value = self._limits.get((key, entity))
            if value is not None:
                return Limit(whose, value)
        return None

    # -- what was used

    def produced(self, call: Asking, size: int) -> None:
        """A client has sent so many bytes of records."""
        limit = self._limit(PRODUCE, call)
        if limit is not None:
            now = self.now()
            rate = self._rate(limit.whose, now)
            rate.record(size, now)
            self.mutes.mute(call.connection, wait_of(rate, limit.value, now), now)

    def fetch_bytes_max(self, call: Asking) -> int | None:
        """Most bytes for one answer: what the limit gives in all windows but one. None: no limit."""
        limit = self._limit(FETCH, call)
        if limit is None:
            return None
        return int(limit.value * (self._windows.number - 1) * self._windows.seconds)

    def fetched(self, call: Asking, size: int) -> bool:
        """A client would get so many bytes of records. False: it has to wait, and gets none of them now."""
        limit = self._limit(FETCH, call)
        if limit is None or not size:
            return True
        now = self.now()
        rate = self._rate(limit.whose, now)
        before = rate.value(now)
        rate.record(size, now)
        wait = wait_of(rate, limit.value, now)
        if wait <= 0.0 or before <= 0.0:
            # a single batch that is more than the windows may hold comes through when nothing else did: it would never
            self.mutes.mute(call.connection, wait, now)
            return True
        rate.record(-size, now)
        self.mutes.mute(call.connection, wait, now)
        return False

    def handled(self, call: Asking, seconds: float) -> None:
        """The loop has spent so much time on a client's request."""
        limit = self._limit(REQUEST, call)
        if limit is not None:
            now = self.now()
            rate = self._rate(limit.whose, now)
            rate.record(seconds * 100, now)  # per second of one processor, hence per cent
            # Kafka's longest wait is a window: a client that has been served is asked to be slower, not to go
            wait = min(wait_of(rate, limit.value, now), self._windows.seconds)
            self.mutes.mute(call.connection, wait, now)

    def measured(self, call: Asking, work: Coroutine[Any, Any, Any]) -> _Measured:
        """`work`, whose time counts as its client's when it has come to its end."""
        return _Measured(self, call, work)

    def mutations(self, call: Asking, *, strict: bool) -> Mutations:
        """What a request that creates or deletes partitions asks for each of them."""
        limit = self._limit(MUTATION, call) if self.active else None
        return Mutations(self, call.connection, limit, strict=strict)

    def connected(self, address: str) -> float:
        """An address has opened a connection: 0, or the seconds until it should be closed again."""
        ip = _plain(address)
        value = self._limits.get((CONNECTION, ((IP, ip),)), self._limits.get((CONNECTION, ((IP, None),))))
        if value is None:
            return 0.0
        now = self.now()
        rate = self._rate((CONNECTION, ip, None), now)
        rate.record(1, now)
        wait = wait_of(rate, value, now)
        if wait > 0.0:
            rate.record(-1, now)
        return min(wait, self._windows.seconds)

    # -- meters

    def _rate(self, whose: Whose, now: float) -> Rate:
        meter = self._meter(whose, now, lambda: Rate(*self._windows))
        assert isinstance(meter, Rate)
        return meter

    def bucket(self, limit: Limit, now: float) -> Bucket:
        """The tokens of a limit of changes."""
        burst = self._mutation_windows.span
        bucket = self._meter(limit.whose, now, lambda: Bucket(limit.value, burst, now))
        assert isinstance(bucket, Bucket)
        bucket.change_rate(limit.value, burst, now)
        return bucket

    def _meter(self, whose: Whose, now: float, make: Callable[[], Rate | Bucket]) -> Rate | Bucket:
        meters = self._meters
        found = meters.pop(whose, None)
        if found is None:
            self._drop_unused(now)
            found = (now, make())
        meters[whose] = (now, found[1])
        return found[1]

    def _drop_unused(self, now: float) -> None:
        """Meters that say nothing any more go, and one more where there is no room."""
        meters = self._meters
        span = max(self._windows.span, self._mutation_windows.span)
        while meters:
            oldest = next(iter(meters))
            used, meter = meters[oldest]
            idle = now - used > span and (isinstance(meter, Rate) or meter.is_full(now))
            if not idle and len(meters) < METERS_MAX:
                return
            del meters[oldest]


class Mutations:
    """One request's changes to partitions. In strict versions what is beyond the limit is refused (KIP-599), in older
    ones it is done and waited for."""

    __slots__ = ("_connection", "_limit", "_quotas", "_strict")

    def __init__(
        self, quotas: Quotas, connection: Pausable | None, limit: Limit | None, *, strict: bool
    ) -> None:
        self._quotas = quotas
        self._connection = connection
        self._limit = limit
        self._strict = strict

    def take(self, partitions: int) -> None:
        """Change so many; KafkaError THROTTLING_QUOTA_EXCEEDED where that must wait."""
        limit = self._limit
        if limit is None:
            return
        quotas = self._quotas
        now = quotas.now()
        bucket = quotas.bucket(limit, now)
        if self._strict:
            wait = bucket.wait(now)
            if wait > 0.0:
                quotas.mutes.mute(self._connection, wait, now)
                raise KafkaError(
                    ErrorCode.THROTTLING_QUOTA_EXCEEDED, "The throttling quota has been exceeded."
                )
            bucket.take(partitions, now)
        else:
            bucket.take(partitions, now)
            quotas.mutes.mute(self._connection, bucket.wait(now), now)


class _Measured:
    """Awaits a handler's work and counts the time between its pauses."""

    __slots__ = ("_call", "_quotas", "_work")

    def __init__(self, quotas: Quotas, call: Asking, work: Coroutine[Any, Any, Any]) -> None:
        self._quotas = quotas
        self._call = call
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        quotas, steps = self._quotas, self._work.__await__()
        now = quotas.now
        spent = 0.0
        sent: Any = None
        thrown: BaseException | None = None
        while True:
            began = now()
            try:
                waits_for = steps.send(sent) if thrown is None else steps.throw(thrown)
            except StopIteration as end:
                quotas.handled(self._call, spent + now() - began)
                return end.value
            spent += now() - began
            sent = thrown = None
            try:
                sent = yield waits_for
            except BaseException as error:  # noqa: BLE001 - handed on: it is the work's
                thrown = error


def _known(entity: Entity) -> Entity:
    """An entity as it is looked up: by type, addresses in one spelling."""
    return tuple(
        sorted((type, _plain(name) if type == IP and name is not None else name) for type, name in entity)
    )


def _digest(name: str) -> str:
    return blake2b(name.encode(), digest_size=16).hexdigest()


def _plain(address: str) -> str:
    """One spelling for an address, also where a listener of both families calls an IPv4 one by an IPv6 name."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    mapped = getattr(ip, "ipv4_mapped", None)
    return str(mapped or ip)
