"""Ids as Kafka writes them."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from kbroker.model import new_uuid, uuid_of, uuid_text


def test_ids_are_written_as_kafka_writes_them():
    assert "AAAAAAAAAAAAAAAAAAAAAQ" == uuid_text(UUID(int=1))
    assert UUID(int=1) == uuid_of("AAAAAAAAAAAAAAAAAAAAAQ")
    with pytest.raises(ValueError):
        uuid_of("short")


def test_new_ids_never_look_like_an_option():
    dice = random.Random(1)
    texts = [uuid_text(new_uuid(dice)) for _ in range(700)]

    assert not [text for text in texts if text.startswith("-")]
    assert 700 == len(set(texts))
    assert {22} == {len(text) for text in texts}
