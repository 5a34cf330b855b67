"""kbroker: a log broker that existing Kafka clients use unchanged."""

__version__ = "0.1.0"
