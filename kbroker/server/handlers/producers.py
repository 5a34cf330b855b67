"""InitProducerId: identities for idempotent producers."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.producers import InitProducerIdRequest, InitProducerIdResponse
from kbroker.server.producer_ids import ProducerIds
from kbroker.server.rooms import Call, Rooms

NO_PRODUCER_ID = NO_PRODUCER_EPOCH = -1


def handle_init_producer_id(
    rooms: Rooms, call: Call, request: InitProducerIdRequest
) -> InitProducerIdResponse | Coroutine[Any, Any, InitProducerIdResponse]:
    """InitProducerId: v0-5.

    Always a new id with epoch 0, from this broker's block: an id and epoch that the client brings (v3+, KIP-360) are
    for transactional producers. Either both of them or none, else INVALID_REQUEST.
    Not done: transactions; a transactional id answers TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal in every client.
    v2 flexible · v3 producer id and epoch (KIP-360) · v4 PRODUCER_FENCED (KIP-588) · v5 TRANSACTION_ABORTABLE (KIP-890)
    """
    if request.transactional_id is not None:
        # Kafka: an empty transactional id is a client's mistake, whatever the broker can do
        if not request.transactional_id:
            return _refused(ErrorCode.INVALID_REQUEST)
        rooms.refusals.tell(
            call,
            "transactional producer refused",
            transactional_id=request.transactional_id,
            cure="transactions are not here yet: leave transactional.id out of the producer's configuration",
        )
        return _refused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    if (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == NO_PRODUCER_EPOCH):
        return _refused(ErrorCode.INVALID_REQUEST)
    ids = rooms.producer_ids
    producer_id = ids.take()
    return _from_new_block(rooms, ids) if producer_id is None else _given(producer_id)


async def _from_new_block(rooms: Rooms, ids: ProducerIds) -> InitProducerIdResponse:
    try:
        return _given(await ids.take_from_new_block(rooms.propose))
    except KafkaError as error:
        # 14 is the code that every producer retries here; the others end an idempotent producer for good
        code = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if error.code.retriable else error.code
        return _refused(code)


def _given(producer_id: int) -> InitProducerIdResponse:
    return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)


def _refused(code: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(
        error_code=code, producer_id=NO_PRODUCER_ID, producer_epoch=NO_PRODUCER_EPOCH
    )
