from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from kbroker.errors import ErrorCode, KafkaError, ProtocolError
from kbroker.net.slots import Slot
from kbroker.protocol.frames import decode_response, encode_request
from kbroker.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from kbroker.protocol.messages.cluster import DescribeClusterRequest, DescribeClusterResponse
from kbroker.protocol.messages.metadata import MetadataRequest, MetadataResponse
from kbroker.server.apis import APIS, Api
from kbroker.server.dispatch import Dispatcher, Peer
from kbroker.server.handlers.api_versions import handle_api_versions
from kbroker.server.quotas import Quotas, Windows
from kbroker.server.rooms import NO_RESPONSE
from tests.support.fake_net import Wire, frame
from tests.support.storage import ManualClock

METADATA, VERSIONS_OF_APIS, DESCRIBE_CLUSTER = 3, 18, 60


class House:
    """A dispatcher whose Metadata and DescribeCluster are answered by `handler`, and one connection to it."""

    def __init__(self, handler: Any = None) -> None:
        self.calls: list[Any] = []
        self.tasks: list[Any] = []
        self._handler = handler

        def handle(rooms: Any, call: Any, request: Any) -> Any:
            self.calls.append((call, request))
            return handler(call, request) if handler is not None else MetadataResponse()

        apis = {
            METADATA: Api(handle, (0, 13), (0, 13)),
            VERSIONS_OF_APIS: Api(handle_api_versions, (0, 4), (0, 4)),
            DESCRIBE_CLUSTER: Api(handle, (0, 2), (1, 1)),
        }
        self.clock = ManualClock()
        self.quotas = Quotas(self.clock, windows=Windows(11, 1), mutation_windows=Windows(11, 1))
        rooms = SimpleNamespace(quotas=self.quotas)
        self.dispatcher = Dispatcher(
            rooms, apis, start_task=lambda work, name: self.tasks.append(asyncio.ensure_future(work))
        )
        self.wire = Wire(on_frame=self.dispatcher.on_frame, on_close=self.dispatcher.on_close)
        self.peer = self.wire.connection.context = Peer("PLAINTEXT", "User:ANONYMOUS")

    def send(self, message: Any, version: int, correlation_id: int = 1, client_id: str | None = "me") -> None:
        self.wire.arrive(b"".join(encode_request(message, version, correlation_id, client_id)))

    def answers(self, cls: Any, version: int) -> list[tuple[int, Any]]:
        return [decode_response(cls, version, memoryview(answer)) for answer in self.wire.answers()]


# -- headers


@pytest.mark.parametrize("client_id", [None, "", "me", "kläus", "x" * 32767])
@pytest.mark.parametrize("version", [1, 9])
def test_a_request_is_handed_over_with_who_asks(client_id, version):
    house = House()

    house.send(MetadataRequest(topics=None), version, 77, client_id)

    [(call, request)] = house.calls
    assert (version, client_id or None) == (call.version, call.client_id or None)
    assert request.topics is None
    assert [77] == [correlation for correlation, _ in house.answers(MetadataResponse, version)]


def test_the_client_id_of_the_latest_request_counts():
    house = House()

    for client_id in ("one", "two", "two"):
        house.send(MetadataRequest(topics=None), 9, 1, client_id)

    assert "two" == house.peer.client_id


@pytest.mark.parametrize("version", [1, 9])
@pytest.mark.parametrize("nobody", [None, ""])
def test_a_request_without_client_id_is_not_taken_for_the_one_before(nobody, version):
    house = House()

    for client_id in ("__admin_client", nobody):
        house.send(MetadataRequest(topics=None), version, 1, client_id)

    assert house.peer.client_id is None


def test_tagged_fields_of_a_header_are_skipped():
    house = House()
    header = b"\0\x03\0\x09\0\0\0\x05\0\x02me" + b"\x01\x07\x03abc"

    house.wire.arrive(frame(header + b"\0\0\0\0\0"))

    assert [5] == [correlation for correlation, _ in house.answers(MetadataResponse, 9)]


@pytest.mark.parametrize(
    "header",
    [
        b"\0\x03\0\x01\0\0\0\x05\0\x64me",  # a client id longer than the frame
        b"\0\x03\0\x01\0\0\0\x05\x7f\xffme",
        b"\0\x03\0\x01\0\0\0\x05\0\x02\xff\xfe\0\0\0\0",  # not UTF-8
        b"\0\x03\0\x09\0\0\0\x05\0\x02me\x01\x07\x64abc",  # a tagged field longer than the frame
        b"\0\x03\0\x09\0\0\0\x05\0\x02me\xff\xff\xff\xff\x0f",  # as many tagged fields as there are numbers
        b"\0\x03\0\x09\0\0\0\x05\0\x02me",  # no tagged fields, no body
        b"\0\x12\0\x00\0\0\0\x05\0\x02",  # ApiVersions has no body, but its header must be whole
        b"\0\x12\0\x00\0\0\0\x05\0\x01",
    ],
)
def test_a_header_that_does_not_add_up_closes(header):
    house = House()

    house.wire.arrive(frame(header))

    assert [] == house.calls
    assert b"" == house.wire.sent
    [error] = house.wire.ends
    assert isinstance(error, ProtocolError)


def test_a_header_that_is_cut_is_not_read_from_what_came_before_it():
    """The receive buffer is shared: behind a short frame lie the bytes of an earlier, longer one."""
    house = House()
    house.send(ApiVersionsRequest(), 0, 1, "me")
    assert 1 == len(house.wire.answers())

    house.wire.arrive(frame(b"\0\x12\0\x00\0\0\0\x05\0\x02"))

    assert 1 == len(house.wire.answers())
    assert isinstance(house.wire.ends[0], ProtocolError)


@pytest.mark.parametrize("body", [b"\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x01\0\x05abc"])
def test_a_body_that_does_not_decode_closes(body):
    house = House()

    house.wire.arrive(frame(b"\0\x03\0\x01\0\0\0\x05\0\x02me" + body))

    assert [] == house.calls
    assert isinstance(house.wire.ends[0], ProtocolError)


# -- what is served


@pytest.mark.parametrize("version", [5, 99, 32767, -1, -32768])
def test_api_versions_of_an_unknown_version_is_answered_in_v0_and_the_connection_stays(version):
    house = House()

    house.wire.arrive(
        frame(b"\0\x12" + version.to_bytes(2, "big", signed=True) + b"\0\0\0\x07\0\x02me" + b"\0\x02a\x02b\0")
    )
    house.send(ApiVersionsRequest(client_software_name="a", client_software_version="1"), 3, 8)

    first = decode_response(ApiVersionsResponse, 0, memoryview(house.wire.answers()[0]))
    assert 7 == first[0]
    assert ErrorCode.UNSUPPORTED_VERSION == first[1].error_code
    assert [(18, 0, 4)] == [
        (key.api_key, key.min_version, key.max_version) for key in first[1].api_keys if key.api_key == 18
    ]
    assert 2 == len(house.wire.answers())
    assert [] == house.wire.ends


@pytest.mark.parametrize(("key", "version"), [(3, 14), (3, -1), (60, 0), (60, 2), (999, 0), (-1, 0), (7, 3)])
def test_another_unknown_version_closes_and_says_whose_it_was(key, version):
    house = House()
    head = key.to_bytes(2, "big", signed=True) + version.to_bytes(2, "big", signed=True)

    house.wire.arrive(frame(head + b"\0\0\0\x07\0\x02me" + b"\0" * 20))

    [error] = house.wire.ends
    assert isinstance(error, ProtocolError)
    assert f"version {version} from client id 'me'" in str(error)


def test_the_ranges_are_those_of_the_messages():
    """Kafka's own, but for versions that are unstable there."""
    from kbroker.protocol.messages import REQUESTS

    unstable = {22: (0, 5)}

    assert {key: unstable.get(key, REQUESTS[key].VALID) for key in APIS} == {
        key: api.served for key, api in APIS.items()
    }


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.handler)
def test_every_row_leads_to_a_handler(api):
    handler, lane_of = api.load()

    assert callable(handler)
    assert (lane_of is None) == (api.lane_of is None)


def test_produce_is_advertised_from_0_and_served_from_3():
    """KAFKA-18659: librdkafka before 2.11.1 turns compression off where Produce does not begin at 0."""
    assert ((0, 13), (3, 13)) == (APIS[0].advertised, APIS[0].served)


# -- answers of every kind


def test_an_answer_that_comes_later_keeps_its_place():
    slots: list[Slot] = []

    def handler(call: Any, request: Any) -> Any:
        if request.allow_auto_topic_creation:
            slots.append(Slot())
            return slots[-1]
        return MetadataResponse(cluster_id="second")

    house = House(handler)
    house.send(MetadataRequest(topics=None, allow_auto_topic_creation=True), 9, 1)
    house.send(MetadataRequest(topics=None, allow_auto_topic_creation=False), 9, 2)
    assert [] == house.wire.answers()

    house.wire.step(lambda: slots[0].fill(MetadataResponse(cluster_id="first")))

    assert [(1, "first"), (2, "second")] == [
        (correlation, answer.cluster_id) for correlation, answer in house.answers(MetadataResponse, 9)
    ]


def test_an_answer_given_before_the_handler_returns_is_sent():
    def handler(call: Any, request: Any) -> Any:
        slot = Slot()
        slot.fill(MetadataResponse(cluster_id="here"))
        return slot

    house = House(handler)
    house.send(MetadataRequest(topics=None), 9, 4)

    assert [(4, "here")] == [
        (number, answer.cluster_id) for number, answer in house.answers(MetadataResponse, 9)
    ]


def test_no_response_is_no_bytes_and_the_next_is_answered():
    answers = iter([NO_RESPONSE, MetadataResponse()])
    house = House(lambda call, request: next(answers))

    house.send(MetadataRequest(topics=None), 9, 1)
    house.send(MetadataRequest(topics=None), 9, 2)

    assert [2] == [number for number, _ in house.answers(MetadataResponse, 9)]


@pytest.mark.parametrize("kind", ["message", "slot", "filled slot", "nothing"])
async def test_an_async_handler_may_return_anything_a_plain_one_may(kind):
    slot = Slot()

    async def later() -> Any:
        await asyncio.sleep(0)
        if kind == "filled slot":
            slot.fill(MetadataResponse(cluster_id="async"))
        return {"message": MetadataResponse(cluster_id="async"), "nothing": NO_RESPONSE}.get(kind, slot)

    answers = iter([later(), MetadataResponse(cluster_id="next")])
    house = House(lambda call, request: next(answers))
    house.send(MetadataRequest(topics=None), 9, 1)
    house.send(MetadataRequest(topics=None), 9, 2)

    await asyncio.gather(*house.tasks)
    if kind == "slot":
        slot.fill(MetadataResponse(cluster_id="async"))
    house.wire.run()

    expected = [(2, "next")] if kind == "nothing" else [(1, "async"), (2, "next")]
    assert expected == [(number, answer.cluster_id) for number, answer in house.answers(MetadataResponse, 9)]


# -- what fails


def raising(error: Exception) -> Any:
    def handler(call: Any, request: Any) -> Any:
        raise error

    return handler


def raising_later(error: Exception) -> Any:
    async def later() -> Any:
        raise error

    return lambda call, request: later()


@pytest.mark.parametrize("handler", [raising, raising_later])
@pytest.mark.parametrize("error", [ValueError("ours"), KafkaError(ErrorCode.INVALID_REQUEST)])
async def test_what_a_handler_lets_escape_closes_the_connection_with_one_line(handler, error, capsys):
    house = House(handler(error))

    house.send(MetadataRequest(topics=None), 9)
    await asyncio.gather(*house.tasks)

    assert [None] == house.wire.ends
    assert b"" == house.wire.sent


def test_an_answer_that_does_not_encode_closes_the_connection():
    for answer in (MetadataResponse(cluster_id=object()), MetadataResponse(controller_id=1 << 40)):  # type: ignore[arg-type]
        house = House(lambda call, request, answer=answer: answer)

        house.send(MetadataRequest(topics=None), 9)

        assert 1 == len(house.wire.ends)
        assert b"" == house.wire.sent


# -- who waits and is lost


def test_who_would_answer_learns_that_the_connection_ended():
    lost: list[int] = []
    numbers = iter(range(3))

    def handler(call: Any, request: Any) -> Any:
        number = next(numbers)
        return Slot(lambda: lost.append(number))

    house = House(handler)
    for _ in range(3):
        house.send(MetadataRequest(topics=None), 9)

    house.wire.arrive(b"")

    assert [0, 1, 2] == lost


def test_one_who_fails_to_hear_of_the_end_keeps_it_from_nobody(caplog):
    lost: list[int] = []
    numbers = iter(range(3))

    def handler(call: Any, request: Any) -> Any:
        number = next(numbers)

        def on_lost() -> None:
            lost.append(number)
            if number < 2:
                raise ValueError("ours")

        return Slot(on_lost)

    house = House(handler)
    for _ in range(3):
        house.send(MetadataRequest(topics=None), 9)

    house.wire.arrive(b"")

    assert [0, 1, 2] == lost
    assert 2 == sum("failed to hear" in line for line in caplog.messages)


def test_a_connection_remembers_only_those_who_have_not_answered():
    """A reader polls for days on one connection."""
    slots: list[Slot] = []

    def handler(call: Any, request: Any) -> Any:
        slots.append(Slot(lambda: None))
        return slots[-1]

    house = House(handler)
    for _ in range(1000):
        house.send(MetadataRequest(topics=None), 9)
        house.wire.step(lambda: slots[-1].fill(MetadataResponse()))

    assert 1000 == len(house.wire.answers())
    assert len(house.peer.lost or ()) <= 1


async def test_an_async_handler_that_waits_is_told_too():
    lost: list[str] = []

    async def later() -> Any:
        return Slot(lambda: lost.append("told"))

    house = House(lambda call, request: later())
    house.send(MetadataRequest(topics=None), 9)
    await asyncio.gather(*house.tasks)

    house.wire.arrive(b"")

    assert ["told"] == lost


async def test_an_async_handler_that_ends_after_its_connection_lets_go_too():
    lost: list[str] = []
    gate = asyncio.Event()

    async def later() -> Any:
        await gate.wait()
        return Slot(lambda: lost.append("told"))

    house = House(lambda call, request: later())
    house.send(MetadataRequest(topics=None), 9)
    house.wire.arrive(b"")
    gate.set()
    await asyncio.gather(*house.tasks)

    assert ["told"] == lost


def test_describe_cluster_goes_by_its_own_version_range():
    house = House(lambda call, request: DescribeClusterResponse(cluster_id="c"))

    house.send(DescribeClusterRequest(), 1, 3)

    assert [3] == [number for number, _ in house.answers(DescribeClusterResponse, 1)]
