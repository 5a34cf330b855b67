"""A Kafka client of a few lines: one blocking socket, one request at a time, in any version, by kbroker's own codec."""

from __future__ import annotations

import socket
from typing import Any

from kbroker.protocol.frames import decode_response, encode_request
from kbroker.protocol.messages import RESPONSES
from kbroker.protocol.wire import Message

LIMIT_S = 60.0


class RawClient:
    """`with RawClient(host, port) as ask: response = ask(request, version)`."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=LIMIT_S)
        self._number = 0

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __call__(self, request: Message, version: int) -> Any:
        """The response to `request`; ConnectionError when the broker closes instead."""
        self._number += 1
        self._socket.sendall(b"".join(map(bytes, encode_request(request, version, self._number, "raw"))))
        correlation_id, response = decode_response(RESPONSES[request.API_KEY], version, self.frame())
        assert self._number == correlation_id
        return response

    def frame(self) -> memoryview:
        """The next frame, without its size."""
        return memoryview(self._exactly(int.from_bytes(self._exactly(4), "big")))

    def send(self, frame: bytes) -> None:
        """Any bytes."""
        self._socket.sendall(frame)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the broker closed the connection")
            data += more
        return bytes(data)


def error_codes(message: Any) -> list[int]:
    """Every `error_code` in a response, wherever it is."""
    if isinstance(message, list):
        return [code for item in message for code in error_codes(item)]
    if not hasattr(type(message), "__slots__") or isinstance(message, str | bytes | memoryview):
        return []
    found = []
    for name in type(message).__slots__:
        value = getattr(message, name, None)
        if name == "error_code":
            found.append(value)
        else:
            found += error_codes(value)
    return found
