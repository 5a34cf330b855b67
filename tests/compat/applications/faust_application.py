"""A faust-streaming application: copies every record of one topic to another, at least once.

    python faust_application.py SERVERS GROUP SOURCE TARGET FOLDER

A copy's value is the record's partition, offset and value, with spaces between. SIGTERM ends it.
"""

from __future__ import annotations

import sys
from typing import Any

import faust

servers, group, source, target, folder = sys.argv[1:]

app = faust.App(
    group,
    broker=f"kafka://{servers}",
    store="memory://",
    datadir=folder,
    consumer_auto_offset_reset="earliest",
    # a short session: another takes over soon when one of us is killed
    broker_session_timeout=10.0,
    broker_heartbeat_interval=0.5,
    broker_commit_interval=0.2,
    stream_wait_empty=False,
)
lines = app.topic(source, key_type=bytes, value_type=bytes, value_serializer="raw")
copies = app.topic(target, key_type=bytes, value_type=bytes, value_serializer="raw")


@app.agent(lines)
async def copy(stream: Any) -> None:
    async for event in stream.events():
        place = f"{event.message.partition} {event.message.offset} ".encode()
        await (await copies.send(value=place + event.value))


if __name__ == "__main__":
    sys.argv[1:] = ["worker", "--without-web", "--loglevel=info"]
    app.main()
