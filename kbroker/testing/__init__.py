"""For tests that need Kafka: `Broker`, a real one in this process, and `ExternalBroker`, any other over the network.

Knows brokers from outside their work: nothing of kbroker's imports it. Both have the same methods, so the same tests
run against either; `kbroker.pytest_plugin` makes fixtures of them.
"""

from __future__ import annotations

from kbroker.errors import ErrorCode, KafkaError, StartError
from kbroker.protocol.records import Record
from kbroker.testing.broker import Broker
from kbroker.testing.external import ExternalBroker

__all__ = ["Broker", "ErrorCode", "ExternalBroker", "KafkaError", "Record", "StartError"]
