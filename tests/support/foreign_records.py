"""The record batch code of kafka-python and aiokafka, to compare ours with."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # kafka-python loads its schemas by a call that Python has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from aiokafka.record import default_records as aiokafka
    from kafka.record import default_records as kafka_python

__all__ = ["aiokafka", "kafka_python"]
