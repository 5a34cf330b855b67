"""kio, an independent implementation of the protocol: the same bytes through its readers and writers."""

from __future__ import annotations

import io
from importlib import import_module, util
from typing import Any

from kbroker.protocol.messages import APIS


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


def entity_class(key: int, version: int, kind: str) -> Any:
    """kio's class for a "request" or "response", None where it has none."""
    name = APIS[key][1]
    module = f"kio.schema.{_snake(name)}"
    if util.find_spec(module) is None or util.find_spec(f"{module}.v{version}") is None:
        return None
    return getattr(import_module(f"{module}.v{version}.{kind}"), name + kind.title())


def there_and_back(entity: Any, body: bytes) -> bytes:
    """Read `body` as `entity` and write what was read."""
    from kio.serial import entity_reader, entity_writer

    read, size = entity_reader(entity)(body, 0)
    assert len(body) == size
    out = io.BytesIO()
    entity_writer(entity)(out, read)
    return out.getvalue()
