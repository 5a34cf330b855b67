"""Every message at every version against kio: the same bytes, both ways."""

from __future__ import annotations

import pytest

from kbroker.protocol.codec import decode, encode
from kbroker.protocol.messages import APIS, REQUESTS, RESPONSES
from tests.support.kio_oracle import entity_class, there_and_back
from tests.support.random_messages import RandomMessages

# Newer than kio's schemas; checked by their own round trip and by golden bytes.
UNKNOWN_TO_KIO: set[tuple[int, int, str]] = set()

SAMPLES = 6


@pytest.mark.parametrize("kind", ["request", "response"])
@pytest.mark.parametrize("key", APIS, ids=[name for _, name in APIS.values()])
def test_kio_reads_what_we_write_and_we_read_what_kio_writes(key, kind):
    cls = (REQUESTS if kind == "request" else RESPONSES)[key]
    first, last = cls.VALID
    for version in range(first, last + 1):
        entity = entity_class(key, version, kind)
        assert ((key, version, kind) in UNKNOWN_TO_KIO) == (entity is None), version
        if entity is None:
            continue
        random = RandomMessages((key, version, kind))
        for message in [cls(), *(random.message(cls, version) for _ in range(SAMPLES))]:
            ours = b"".join(encode(message, version))
            theirs = there_and_back(entity, ours)
            assert ours == theirs, (version, message)
            assert message == decode(cls, version, memoryview(theirs)), version
