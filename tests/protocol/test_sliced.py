"""Encoding in slices: the same bytes, with pauses."""

from __future__ import annotations

import pytest

from kbroker.protocol.codec import encode_body
from kbroker.protocol.encoder import compile_sliced_encoder
from kbroker.protocol.frames import encode_response, encode_response_in_slices
from kbroker.protocol.layout import same_layout
from kbroker.protocol.messages import RESPONSES
from kbroker.protocol.messages.fetch import FetchableTopicResponse, FetchResponse, PartitionData
from kbroker.protocol.messages.groups import Coordinator, FindCoordinatorResponse
from kbroker.protocol.sliced import ELEMENTS_PER_SLICE, encode_in_slices
from tests.support.random_messages import RandomMessages


def taken(steps):
    """What a generator returns, and how often it paused."""
    pauses = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, pauses
        pauses += 1


def joined(body) -> bytes:
    return body if type(body) is bytes else b"".join(body)


@pytest.mark.parametrize("key", RESPONSES)
def test_slices_of_any_size_make_the_same_bytes(key):
    cls = RESPONSES[key]
    first, last = cls.VALID
    for version in range(first, last + 1):
        make = RandomMessages(f"{key} {version}", unknown_tags=True)
        for elements in (1, 3):
            encoder = compile_sliced_encoder(cls, same_layout(cls, version), elements)
            message = make.message(cls, version)
            assert joined(encode_body(message, version)) == joined(taken(encoder(message))[0])


@pytest.mark.parametrize("version", [4, 6])
def test_each_slice_has_so_many_elements(version):
    names = [Coordinator(key=str(number), host="h") for number in range(3 * ELEMENTS_PER_SLICE + 5)]
    response = FindCoordinatorResponse(coordinators=names)

    frame, pauses = taken(encode_response_in_slices(response, version, 7))

    assert encode_response(response, version, 7) == frame
    assert 3 == pauses


def test_records_stay_parts_of_their_own():
    records = memoryview(bytes(5000))
    partitions = [PartitionData(partition_index=index, records=records) for index in range(5)]
    response = FetchResponse(responses=[FetchableTopicResponse(topic="t", partitions=partitions)])

    frame, _ = taken(encode_response_in_slices(response, 11, 7))

    assert joined(encode_response(response, 11, 7)) == joined(frame)
    assert [records] * 5 == [part for part in frame if part is records]


def test_a_value_that_does_not_fit_is_an_error_as_always():
    with pytest.raises(ValueError, match="FindCoordinatorResponse v4"):
        taken(encode_in_slices(FindCoordinatorResponse(coordinators=[Coordinator(port="no")]), 4))
