"""Identities of producers: InitProducerId."""

from __future__ import annotations

from kbroker.protocol.wire import Message, boolean, int16, int32, int64, string


class InitProducerIdRequest(Message, key=22, valid="0-6", flexible=2):
    """An id and epoch for an idempotent or transactional producer."""

    transactional_id: str | None = string(nullable="0+")
    transaction_timeout_ms: int = int32()
    producer_id: int = int64("3+", default=-1)
    producer_epoch: int = int16("3+", default=-1)
    enable_2pc: bool = boolean("6+")
    keep_prepared_txn: bool = boolean("6+")


class InitProducerIdResponse(Message, key=22, valid="0-6", flexible=2):
    """The id and epoch."""

    throttle_time_ms: int = int32(ignorable=True)
    error_code: int = int16()
    producer_id: int = int64(default=-1)
    producer_epoch: int = int16()
    ongoing_txn_producer_id: int = int64("6+", default=-1)
    ongoing_txn_producer_epoch: int = int16("6+", default=-1)
