"""The client behind the command line: connections, the cluster, admin calls, producing, consuming. On asyncio streams.

Talks to any Kafka since 2.4 in the versions both sides know. Knows nothing of click, terminals or tables: what it has to
say to a person is a ClientError of one sentence.
"""

from __future__ import annotations
