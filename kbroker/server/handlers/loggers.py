"""The resource BROKER_LOGGER of DescribeConfigs and IncrementalAlterConfigs: what this process logs, by room.

A level lasts until the process ends, as in Kafka; embedded brokers of one process share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from kbroker.config.alter import DELETE, SET
from kbroker.config.options import ConfigSource, ConfigType
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import BrokerId
from kbroker.observe import logs
from kbroker.protocol.messages.configs import DescribeConfigsResourceResult, IncrementalAlterableConfig


class LevelChange(NamedTuple):
    """New levels by logger; None: the root's."""

    levels: Mapping[str, str | None]

    def apply(self) -> None:
        """From now on."""
        for name, level in self.levels.items():
            logs.set_level(name, level)


def logger_rows(keys: frozenset[str]) -> Iterator[DescribeConfigsResourceResult]:
    """Each logger with its level."""
    return (
        DescribeConfigsResourceResult(
            name=name,
            value=level,
            config_source=ConfigSource.DYNAMIC_BROKER_LOGGER,
            config_type=ConfigType.UNKNOWN,
            documentation="",
        )
        for name, level in logs.levels().items()
        if not keys or name in keys
    )


def checked_levels(
    node_id: BrokerId, broker: str, asked: Iterable[IncrementalAlterableConfig]
) -> LevelChange:
    """The change that a request wants; KafkaError where it cannot be, with Kafka's codes."""
    if not (broker.removeprefix("-").isdigit() and broker.isascii()):
        raise _wrong(f"Node id must be an integer, but it is: {broker}")
    if broker != str(node_id):
        raise _wrong(f"Unexpected node id. Expected {node_id}, but received {broker}")
    known, levels = logs.levels(), {}
    for each in asked:
        if each.config_operation not in (SET, DELETE):
            raise _wrong(f"Operation {each.config_operation} is not allowed for the BROKER_LOGGER resource")
        if each.name in levels:
            raise _wrong("Error due to duplicate config keys")
        if each.name not in known:
            raise _invalid(f"Logger {each.name} does not exist! There are {', '.join(known)}.")
        levels[each.name] = _level(each)
    return LevelChange(levels)


def _level(asked: IncrementalAlterableConfig) -> str | None:
    if asked.config_operation == DELETE:
        if asked.name == logs.ROOT:
            raise _wrong("Removing the log level of the root logger is not allowed")
        return None
    if asked.value is None:
        raise _wrong(f"Null value not supported for : {asked.name}")
    if asked.value not in logs.KAFKA_LEVELS:
        raise _invalid(
            f"Cannot set the log level of {asked.name} to {asked.value} as it is not a supported log level. "
            f"Valid log levels are {', '.join(sorted(logs.KAFKA_LEVELS))}"
        )
    return asked.value


def _wrong(why: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, why)


def _invalid(why: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_CONFIG, why)
