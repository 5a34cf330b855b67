"""What CreateTopics and the AlterConfigs requests may set: Kafka's rules, codes and words.

Pure: from the settings and what is set already to a refusal (KafkaError), or to the changes to make.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kbroker.config.alter import APPEND, DELETE, SET, SUBTRACT, ConfigOp, altered
from kbroker.config.client_metrics import check_subscription
from kbroker.config.groups import GROUP_OPTIONS, bounds_of
from kbroker.config.listeners import PREFIX
from kbroker.config.options import INT, LIST, PER_BROKER, READ_ONLY, Option, ResourceType
from kbroker.config.topics import TOPIC_OPTIONS, TopicConfig
from kbroker.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from kbroker.config.settings import Settings

_OPERATIONS = {APPEND: "APPEND", SUBTRACT: "SUBTRACT"}

# While a broker runs its keys and trusted certificates change for one listener at a time. Other options of TLS and SASL
# are taken without a listener's name, too.
_PER_LISTENER = ("ssl.key.", "ssl.keystore.", "ssl.truststore.")

# Of log.cleaner.dedupe.buffer.size each of log.cleaner.threads must have more than this. With a few bytes a round holds one
# batch's keys, and a log of a million of them takes a million rounds.
CLEANER_BUFFER_BYTES = 1 << 20


def check_topic_value(name: str, value: str | None) -> None:
    """Raise INVALID_CONFIG unless a topic's option of this name takes this text."""
    row = TOPIC_OPTIONS.get(name)
    if row is None:
        raise _unknown(name)
    if value is None:
        raise _invalid(f"Null value not supported for topic configs: {name}")
    why = row.refusal(value)
    if why is not None:
        raise _invalid(why)


def check_topic(settings: Settings, configs: Mapping[str, str | None]) -> dict[str, str]:
    """The overrides of a topic to be; INVALID_CONFIG for the first that cannot be, or that contradicts another."""
    for name in configs:
        if name not in TOPIC_OPTIONS:
            raise _unknown(name)
    for name, value in configs.items():
        check_topic_value(name, value)
    overrides = {name: value for name, value in configs.items() if value is not None}
    _check_together(settings.topic_config(overrides))
    return overrides


def check_alter(
    settings: Settings,
    type: int,
    name: str,
    ops: Sequence[ConfigOp],
    current: Mapping[str, str],
    *,
    replace: bool = False,
) -> list[ConfigOp]:
    """The changes to propose for what a request wants of a resource that has `current` set (`replace`: all of that
    goes first). Lists to append to come with their base."""
    names = [op.name for op in ops]
    if len(set(names)) < len(names):
        raise _wrong("Error due to duplicate config keys")
    for op in ops:
        if op.op not in (SET, DELETE, APPEND, SUBTRACT):
            raise _wrong(f"Unknown operation {op.op} for {op.name}")
        if op.op != DELETE and op.value is None:
            raise _wrong(f"Null value not supported for : {op.name}")
    if type == ResourceType.TOPIC:
        return _check_alter_topic(settings, name, ops, {} if replace else current)
    if type == ResourceType.BROKER:
        return _check_alter_broker(settings, name, ops, {} if replace else current)
    if type == ResourceType.GROUP:
        return _check_alter_group(settings, name, ops, {} if replace else current)
    if type == ResourceType.CLIENT_METRICS:
        return _check_alter_client_metrics(name, ops, {} if replace else current)
    raise _wrong(f"Unknown resource type {type}")


def _check_alter_topic(
    settings: Settings, topic: str, ops: Sequence[ConfigOp], current: Mapping[str, str]
) -> list[ConfigOp]:
    if not topic:
        raise _wrong("Default topic resources are not allowed.")
    based = []
    for op in ops:
        row = TOPIC_OPTIONS.get(op.name)
        if row is None and op.op != DELETE:
            raise _unknown(op.name)
        if row is not None and op.op in _OPERATIONS:
            if row.type is not LIST:
                raise _invalid(f"Can't {_OPERATIONS[op.op]} to key {op.name} because its type is not LIST.")
            op = op._replace(base=row.default_text or "")
        based.append(op)
    after = altered(current, based)
    for name in _set_by(based):
        why = TOPIC_OPTIONS[name].refusal(after[name])
        if why is not None:
            raise _invalid(why)
    _check_together(settings.topic_config(after))
    return based


def _check_together(config: TopicConfig) -> None:
    """Options that contradict each other, broker's defaults included."""
    low, high = config.min_compaction_lag_ms, config.max_compaction_lag_ms
    if low > high:
        raise _invalid(
            f"conflict topic config setting min.compaction.lag.ms ({low}) > max.compaction.lag.ms ({high})"
        )
    if config.remote_storage_enable:
        raise _invalid(
            "Tiered Storage functionality is disabled in the broker. "
            "Topic cannot be configured with remote log storage."
        )


def _check_alter_broker(
    settings: Settings, broker: str, ops: Sequence[ConfigOp], current: Mapping[str, str]
) -> list[ConfigOp]:
    _check_broker_name(settings, broker)
    based = []
    for op in ops:
        if op.op in _OPERATIONS:
            row = _broker_option(settings, op.name)
            if row.type is not LIST:
                raise _invalid(
                    f"Config value {_OPERATIONS[op.op].lower()} is not allowed for config key: {op.name}"
                )
            op = op._replace(base=row.default_text or "")
        based.append(op)
    changed = [(name, _broker_option(settings, name)) for name in _set_by(based)]
    for name, _ in changed:
        _check_listener(settings, name)
    _check_dynamic(changed, all_brokers=broker == "")
    after = altered(current, based)
    for name, row in changed:
        why = row.refusal(after[name])
        if why is not None:
            raise _wrong(why)
    _check_brokers_together(settings, after)
    return based


def _check_brokers_together(settings: Settings, after: Mapping[str, str]) -> None:
    """Options of a broker that hold only beside others: those of `after`, and of the broker where these are not set."""

    def value(name: str) -> Any:
        row = _broker_option(settings, name)
        return row.parse(after[name]) if name in after else settings.value(name)

    if value("max.connections") < 1:
        raise _wrong("Invalid max.connections 0")
    if "log.cleaner.threads" in after and value("log.cleaner.threads") < 1:
        raise _wrong("log.cleaner.threads must be at least 1 while the broker runs")
    buffer, threads = "log.cleaner.dedupe.buffer.size", "log.cleaner.threads"
    if buffer in after or threads in after:
        share = value(buffer) // max(value(threads), 1)
        if share <= CLEANER_BUFFER_BYTES:
            raise _wrong(
                f"{buffer} must be more than {CLEANER_BUFFER_BYTES} bytes for each of {threads}: {share}"
            )
    if value("max.connections.per.ip") == 0 and not value("max.connections.per.ip.overrides"):
        raise _wrong(
            "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set."
        )
    for name in ("log.retention.ms", "log.retention.bytes"):
        local = name.replace("log.", "log.local.")
        if name in after or local in after:
            limit = settings.topic_config({}).retention_ms if value(name) is None else value(name)
            if 0 <= limit < value(local):
                raise _wrong(
                    f"Invalid value {value(local)} for configuration {local}: Value must not be more than {name} "
                    f"property value: {limit}"
                )
    for name in ("consumer", "share", "streams"):
        interval = f"group.{name}.assignment.interval.ms"
        least, most = (f"group.{name}.{end}.assignment.interval.ms" for end in ("min", "max"))
        if interval in after and not value(least) <= value(interval) <= value(most):
            raise _wrong(f"{interval} must be between {least} ({value(least)}) and {most} ({value(most)})")


def _check_alter_group(
    settings: Settings, group: str, ops: Sequence[ConfigOp], current: Mapping[str, str]
) -> list[ConfigOp]:
    if not group:
        raise _wrong("Default group resources are not allowed.")
    _check_no_lists(ops)
    for name in _set_by(ops):
        if name not in GROUP_OPTIONS:
            raise _invalid(f"Unknown group config name: {name}" + _near(name, GROUP_OPTIONS))
    after = altered(current, ops)
    for name in _set_by(ops):
        why = GROUP_OPTIONS[name].refusal(after[name])
        if why is not None:
            raise _invalid(why)
    for name in _set_by(ops):
        if GROUP_OPTIONS[name].type is INT:
            _check_bounds(settings, name, int(after[name]))
    _check_sessions(settings, after)
    return list(ops)


def _check_bounds(settings: Settings, name: str, value: int) -> None:
    """A group's option lies between those that the broker sets for it."""
    least, most = bounds_of(name)
    if settings.option(least) is not None and value < settings.value(least):
        raise _invalid(f"{name} must be greater than or equal to {least}")
    if settings.option(most) is not None and value > settings.value(most):
        raise _invalid(f"{name} must be less than or equal to {most}")


def _check_sessions(settings: Settings, values: Mapping[str, str]) -> None:
    """A member is heard of more than once in a session."""
    for kind in ("consumer", "share", "streams"):
        names = f"{kind}.session.timeout.ms", f"{kind}.heartbeat.interval.ms"
        session, heartbeat = (int(values.get(name) or settings.value(f"group.{name}")) for name in names)
        if session <= heartbeat:
            raise _invalid(f"{names[0]} must be greater than {names[1]}")


def _check_alter_client_metrics(
    subscription: str, ops: Sequence[ConfigOp], current: Mapping[str, str]
) -> list[ConfigOp]:
    if not subscription:
        raise _wrong("Subscription name can't be empty")
    _check_no_lists(ops)
    after = altered(current, ops)
    check_subscription({name: after[name] for name in _set_by(ops)})
    return list(ops)


def _check_no_lists(ops: Sequence[ConfigOp]) -> None:
    """Groups and client metrics have no list that can be appended to: Kafka replaces these whole."""
    for op in ops:
        if op.op in _OPERATIONS:
            raise _invalid(f"Can't {_OPERATIONS[op.op]} to key {op.name} because its type is not LIST.")


def _broker_option(settings: Settings, name: str) -> Option:
    row = settings.option(name)
    if row is None:
        # Kafka takes names it does not know, for plug-ins; there are none here, so it can only be a mistake.
        raise _invalid(f"Unknown config name: {name}{settings.nearest(name)}")
    return row


def _check_listener(settings: Settings, name: str) -> None:
    """An option of a listener that is not there has no effect, nor has one whose listener is not in lower case.

    Kafka takes both, and whoever renews a certificate so sees "changed" and the old one served on.
    """
    if not name.startswith(PREFIX):
        return
    given, _, rest = name.removeprefix(PREFIX).partition(".")
    there = [endpoint.listener for endpoint in settings.listeners]
    names = dict.fromkeys(each.lower() for each in (*there, *(settings.controller_listener_names or ())))
    if given in names:
        return
    from difflib import get_close_matches

    near = get_close_matches(given.lower(), names, 1, 0.6)
    hint = f"did you mean {PREFIX}{near[0]}.{rest}?" if near else f"name one of {', '.join(names)}"
    raise _invalid(f"Unknown config name: {name}: there is no listener {given}: {hint}")


def _check_broker_name(settings: Settings, broker: str) -> None:
    if broker and not (broker.isascii() and broker.isdigit()):
        raise _wrong(f"Node id must be an integer, but it is: {broker}")
    if broker and broker != str(settings.node_id):
        raise _wrong(f"Unexpected broker id, expected {settings.node_id}, but received {broker}")


def _check_dynamic(rows: Sequence[tuple[str, Option]], *, all_brokers: bool) -> None:
    fixed = [name for name, row in rows if row.dynamic == READ_ONLY]
    if fixed:
        raise _wrong(f"Cannot update these configs dynamically: [{', '.join(fixed)}]")
    single = [name for name, row in rows if row.dynamic == PER_BROKER]
    bare = [name for name in single if name.startswith(_PER_LISTENER)]
    if bare:
        raise _wrong(
            "These security configs can be dynamically updated only per-listener using the listener prefix: "
            f"[{', '.join(bare)}]"
        )
    if single and all_brokers:
        raise _wrong(
            "Cannot update these configs at default cluster level, broker id must be specified: "
            f"[{', '.join(single)}]"
        )


def _set_by(ops: Iterable[ConfigOp]) -> list[str]:
    return [op.name for op in ops if op.op != DELETE]


def _unknown(name: str) -> KafkaError:
    """Kafka's words, then the topic's option that may have been meant: also by the name of the broker's default."""
    defaults = {broker: row.name for row in TOPIC_OPTIONS.values() for broker, _ in row.falls_back_to}
    near = f": did you mean {defaults[name]}?" if name in defaults else _near(name, TOPIC_OPTIONS)
    return _invalid(f"Unknown topic config name: {name}{near}")


def _near(name: str, options: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, options, 1, 0.6)
    return f": did you mean {near[0]}?" if near else ""


def _invalid(why: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_CONFIG, why)


def _wrong(why: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, why)
