"""From a frame to its handler and back: the table of APIs, headers, versions, answers in order.

One of the doors where errors are caught: whatever a handler lets escape ends that request's connection with one log
line, never the broker.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from kbroker.errors import KafkaError, ProtocolError
from kbroker.net.connection import Connection, Slot
from kbroker.observe import logs
from kbroker.protocol.codec import decode
from kbroker.protocol.frames import decode_request_header, encode_response
from kbroker.protocol.messages import APIS as NAMES
from kbroker.protocol.messages import REQUESTS
from kbroker.protocol.wire import Message
from kbroker.server.handlers.api_versions import handle_api_versions, unsupported_version
from kbroker.server.handlers.cluster import handle_describe_log_dirs
from kbroker.server.handlers.configs import (
    handle_alter_configs,
    handle_describe_configs,
    handle_incremental_alter_configs,
)
from kbroker.server.handlers.fetch import handle_fetch
from kbroker.server.handlers.leader_epochs import handle_offset_for_leader_epoch
from kbroker.server.handlers.list_offsets import handle_list_offsets
from kbroker.server.handlers.metadata import (
    handle_describe_cluster,
    handle_find_coordinator,
    handle_metadata,
)
from kbroker.server.handlers.produce import handle_produce
from kbroker.server.handlers.producers import handle_init_producer_id
from kbroker.server.handlers.topics import (
    handle_create_partitions,
    handle_create_topics,
    handle_delete_records,
    handle_delete_topics,
)
from kbroker.server.rooms import NO_RESPONSE, Call, Later, NoResponse, Rooms

log = logs.get_logger("server")

Response = Message | Later | NoResponse
Handler = Callable[[Rooms, Call, Any], Response | Coroutine[Any, Any, Response]]

API_VERSIONS = 18


class Api(NamedTuple):
    """A row of the table: what is advertised, what is served, who answers."""

    handler: Handler
    advertised: tuple[int, int]
    served: tuple[int, int]


def _api(key: int, handler: Handler, *, advertise: tuple[int, int] | None = None) -> tuple[int, Api]:
    """A row with Kafka's own range, which the messages declare, unless `advertise` says otherwise."""
    served = VERSIONS[key]
    advertise = advertise or served
    return key, Api(handler, advertise, (max(served[0], advertise[0]), min(served[1], advertise[1])))


# Kafka 4.3's ranges, known without importing the messages (a test holds them against the declarations).
VERSIONS: dict[int, tuple[int, int]] = {
    0: (3, 13),
    1: (4, 18),
    2: (1, 11),
    3: (0, 13),
    10: (0, 6),
    18: (0, 4),
    19: (2, 7),
    20: (1, 6),
    21: (0, 2),
    22: (0, 6),
    23: (2, 4),
    32: (1, 4),
    33: (0, 2),
    35: (1, 5),
    37: (0, 3),
    44: (0, 1),
    60: (0, 2),
}

APIS: dict[int, Api] = dict(
    [
        # Kafka 4 advertises Produce from 0 and closes on 0-2: librdkafka before 2.11.1 turns compression off otherwise
        # (KAFKA-18659)
        _api(0, handle_produce, advertise=(0, 13)),
        _api(1, handle_fetch),
        _api(2, handle_list_offsets),
        _api(3, handle_metadata),
        _api(10, handle_find_coordinator),
        _api(API_VERSIONS, handle_api_versions),
        _api(19, handle_create_topics),
        _api(20, handle_delete_topics),
        _api(21, handle_delete_records),
        _api(22, handle_init_producer_id, advertise=(0, 5)),  # 6 is two-phase commit, unstable in Kafka too
        _api(23, handle_offset_for_leader_epoch),
        _api(32, handle_describe_configs),
        _api(33, handle_alter_configs),
        _api(35, handle_describe_log_dirs),
        _api(37, handle_create_partitions),
        _api(44, handle_incremental_alter_configs),
        _api(60, handle_describe_cluster),
    ]
)


def advertised(apis: Mapping[int, Api]) -> dict[int, tuple[int, int]]:
    """What ApiVersions answers: ranges by key."""
    return {key: api.advertised for key, api in apis.items()}


class Peer:
    """What the dispatcher knows of a connection's other end."""

    __slots__ = ("listener", "lost", "name", "principal", "version")

    def __init__(self, listener: str, principal: str) -> None:
        self.listener = listener
        self.principal = principal
        self.name: str | None = None  # client_software_name, as ApiVersions v3+ told
        self.version: str | None = None
        self.lost: dict[Later, None] = {}  # answers to come, to be told when the connection ends


class Dispatcher:
    """Serves the frames of one listener's connections with one broker's rooms."""

    def __init__(
        self,
        rooms: Rooms,
        apis: Mapping[int, Api],
        *,
        start_task: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._rooms = rooms
        self._apis = apis
        self._start_task = start_task
        self._monotonic = rooms.clock.monotonic
        self.requests: dict[int, int] = {}  # served, by api key: a collector reads it

    def on_frame(self, connection: Connection, buffer: memoryview, start: int, end: int) -> None:
        """Serve one frame: decode, hand over, queue the answer."""
        header = decode_request_header(buffer, start, end)
        key, version = header.api_key, header.api_version
        api = self._apis.get(key)
        if api is None or not api.served[0] <= version <= api.served[1]:
            return self._unserved(connection, key, version, header.correlation_id, header.client_id)
        peer: Peer = connection.context
        request = decode(REQUESTS[key], version, buffer, header.body, end)
        self.requests[key] = self.requests.get(key, 0) + 1
        call = Call(
            version=version,
            client_id=header.client_id,
            listener=peer.listener,
            principal=peer.principal,
            peer=connection.peer,
            arrival=self._monotonic(),
            connection=connection,
        )
        try:
            answer = api.handler(self._rooms, call, request)
        except KafkaError as error:
            return self._give_up(connection, call, key, error)
        except ProtocolError:
            raise
        except Exception as error:  # noqa: BLE001 - a door: one request's failure ends its connection, nothing else
            return self._broken(connection, call, key, error)
        correlation_id = header.correlation_id
        if isinstance(answer, Message):
            connection.put(encode_response(answer, version, correlation_id))
        elif type(answer) is Later:
            self._later(connection, call, key, correlation_id, answer)
        elif answer is NO_RESPONSE:
            return
        else:
            slot = Slot(connection)
            connection.put(slot)
            self._start_task(
                self._await(connection, slot, call, key, correlation_id, answer),
                f"{NAMES[key][1]} {connection.peer}",
            )

    def _later(self, connection: Connection, call: Call, key: int, correlation_id: int, later: Later) -> None:
        slot = Slot(connection)
        connection.put(slot)
        version = call.version
        lost = connection.context.lost if later.on_lost is not None else None
        if lost is not None:
            lost[later] = None

        def deliver(response: Any, error: BaseException | None) -> None:
            if lost is not None:
                lost.pop(later, None)
            if not connection.open:
                return
            if error is not None:
                return self._broken(connection, call, key, error)
            slot.fill(encode_response(response, version, correlation_id))

        later.bind(deliver)

    async def _await(
        self, connection: Connection, slot: Slot, call: Call, key: int, correlation_id: int, answer: Any
    ) -> None:
        try:
            response = await answer
            if connection.open:
                slot.fill(encode_response(response, call.version, correlation_id))
        except KafkaError as error:
            self._give_up(connection, call, key, error)
        except Exception as error:  # noqa: BLE001 - a door: one request's failure ends its connection, nothing else
            self._broken(connection, call, key, error)

    def _unserved(
        self, connection: Connection, key: int, version: int, correlation_id: int, client_id: str | None
    ) -> None:
        if key == API_VERSIONS:
            # KIP-511: never close here; the v0 layout with our range tells the client how to ask again
            response = unsupported_version(advertised(self._apis))
            return connection.put(encode_response(response, 0, correlation_id))
        name = NAMES[key][1] if key in NAMES else f"api key {key}"
        api = self._apis.get(key)
        have = f"versions {api.served[0]}-{api.served[1]}" if api else "not served"
        raise ProtocolError(
            f"{name} version {version} from client id {client_id!r}: {have}; "
            "use a client that asks ApiVersions first, or docs/not-supported.md says what is missing"
        )

    def _give_up(self, connection: Connection, call: Call, key: int, error: KafkaError) -> None:
        log.info(
            "connection closed: the request's error has no other answer",
            api=NAMES[key][1],
            peer=call.peer,
            client_id=call.client_id,
            error=str(error),
        )
        connection.close(None)

    def _broken(self, connection: Connection, call: Call, key: int, error: BaseException) -> None:
        log.exception(
            "request failed",
            error,
            api=NAMES[key][1],
            version=call.version,
            peer=call.peer,
            client_id=call.client_id,
        )
        connection.close(None)

    def on_close(self, connection: Connection) -> None:
        """The connection ended: whoever would answer it later learns so."""
        lost = connection.context.lost
        while lost:
            later, _ = lost.popitem()
            later.on_lost()
