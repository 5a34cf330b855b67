"""Rows of DescribeConfigs: each option with its value, where it comes from and what it hides (its synonyms).

As Kafka's, oddities included: a chain is listed from the option's own name on, so a retention given in hours alone is
shown as the default's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kbroker.config.broker import BROKER_OPTIONS
from kbroker.config.client_metrics import CLIENT_METRICS_OPTIONS
from kbroker.config.groups import GROUP_OPTIONS
from kbroker.config.options import READ_ONLY, ConfigSource, ConfigType, Option
from kbroker.config.topics import TOPIC_OPTIONS

if TYPE_CHECKING:
    from kbroker.config.settings import Settings


class Synonym(NamedTuple):
    """One place where a value is looked up, and what is there."""

    name: str
    value: str | None
    source: ConfigSource


class ConfigRow(NamedTuple):
    """One option, as DescribeConfigs answers it. `value` is None where nothing is set, or where it is a secret."""

    name: str
    value: str | None
    source: ConfigSource
    read_only: bool
    sensitive: bool
    synonyms: Sequence[Synonym]
    type: ConfigType
    doc: str

    @property
    def is_default(self) -> bool:
        """Whether nobody has set it."""
        return self.source is ConfigSource.DEFAULT


# Broker options that stand in for another which is not set, in order.
_CHAINS = (
    ("log.roll.ms", "log.roll.hours"),
    ("log.roll.jitter.ms", "log.roll.jitter.hours"),
    ("log.flush.interval.ms", "log.flush.scheduler.interval.ms"),
    ("log.retention.ms", "log.retention.minutes", "log.retention.hours"),
)
_CHAIN = {name: chain[at:] for chain in _CHAINS for at, name in enumerate(chain[:-1])}


def describe_topic(settings: Settings, overrides: Mapping[str, str]) -> list[ConfigRow]:
    """All options of a topic with these overrides."""
    config = vars(settings.topic_config(overrides))
    rows = []
    for name, row in TOPIC_OPTIONS.items():
        if row.internal:
            continue
        value = config[row.attribute]
        # a set has no order: the text is that of the option as given
        text = _given(row, overrides.get(name)) or row.text(_ordered(row, value))
        synonyms = _synonyms(settings, row.falls_back_to[0][0]) if row.falls_back_to else []
        if name in overrides:
            synonyms = [Synonym(name, text, ConfigSource.DYNAMIC_TOPIC), *synonyms]
        rows.append(_row(row, text, synonyms, read_only=False))
    return rows


def describe_broker(settings: Settings) -> list[ConfigRow]:
    """All options of this broker, those without effect here too."""
    from kbroker.config.known import KNOWN, find

    options = {**BROKER_OPTIONS, **KNOWN}
    for name in (*settings.static, *settings.dynamic_default, *settings.dynamic):
        row = options.get(name) or find(name)
        if row is not None:
            options.setdefault(name, row)
    rows = []
    for name, row in options.items():
        if row.internal:
            continue
        text = None if row.sensitive else row.text(settings.found(name, row))
        if name == "log.dir" and text is None:
            text = settings.log_dir
        rows.append(_row(row, text, _synonyms(settings, name), read_only=_read_only(name, row), name=name))
    return rows


def describe_group(settings: Settings, overrides: Mapping[str, str]) -> list[ConfigRow]:
    """All options of a group with these overrides: any group, also one that nobody has seen."""
    rows = []
    for name, row in GROUP_OPTIONS.items():
        if row.falls_back_to:
            broker = row.falls_back_to[0][0]
            synonyms, default = _synonyms(settings, broker), row.text(settings.value(broker))
        else:
            synonyms, default = [Synonym(name, row.default_text, ConfigSource.DEFAULT)], row.default_text
        text = _given(row, overrides.get(name))
        if text is not None:
            synonyms = [Synonym(name, text, ConfigSource.GROUP), *synonyms]
        rows.append(_row(row, default if text is None else text, synonyms, read_only=False))
    return rows


def describe_client_metrics(overrides: Mapping[str, str]) -> list[ConfigRow]:
    """All options of a client metrics subscription with these overrides, also of one that does not exist."""
    rows = []
    for name, row in CLIENT_METRICS_OPTIONS.items():
        text = _given(row, overrides.get(name))
        synonyms = [] if text is None else [Synonym(name, text, ConfigSource.CLIENT_METRICS)]
        rows.append(_row(row, row.default_text if text is None else text, synonyms, read_only=False))
    return rows


def describe_all_brokers(settings: Settings) -> list[ConfigRow]:
    """What is set dynamically for all brokers."""
    rows = []
    for name, text in settings.dynamic_default.items():
        row = settings.option(name)
        if row is not None:
            shown = None if row.sensitive else _given(row, text)
            synonyms = [Synonym(name, shown, ConfigSource.DYNAMIC_DEFAULT_BROKER)]
            rows.append(_row(row, shown, synonyms, read_only=_read_only(name, row), name=name))
    return rows


def _row(
    row: Option, text: str | None, synonyms: Sequence[Synonym], *, read_only: bool, name: str | None = None
) -> ConfigRow:
    source = synonyms[0].source if synonyms else ConfigSource.DEFAULT
    return ConfigRow(name or row.name, text, source, read_only, row.sensitive, synonyms, row.type, row.doc)


def _synonyms(settings: Settings, name: str) -> list[Synonym]:
    """Where a broker's option is looked up: of the broker, of all, static, default; within each by the chain."""
    names: Sequence[str] = _CHAIN.get(name, (name,))
    if name.startswith("listener.name."):
        names = (name, name.split(".", 3)[3])
    found = []
    for layer, source in (
        (settings.dynamic, ConfigSource.DYNAMIC_BROKER),
        (settings.dynamic_default, ConfigSource.DYNAMIC_DEFAULT_BROKER),
        (settings.static, ConfigSource.STATIC_BROKER),
    ):
        found += [_set(settings, one, layer[one], source) for one in names if one in layer]
    for one in names:
        row = settings.option(one)
        default = None if row is None or one.startswith("listener.name.") else row.default_text
        if default is not None:
            found.append(Synonym(one, default, ConfigSource.DEFAULT))
    while found and found[0].name != name:
        del found[0]
    return found


def _set(settings: Settings, name: str, text: str, source: ConfigSource) -> Synonym:
    row = settings.option(name)
    return Synonym(name, None if row is None or row.sensitive else _given(row, text), source)


def _given(row: Option, text: str | None) -> str | None:
    """A text as its value is written: without blanks, a number without its plus."""
    return text if text is None or row.refusal(text) else row.text(row.parse(text))


def _ordered(row: Option, value: object) -> object:
    if not isinstance(value, frozenset):
        return value
    return tuple(sorted(value, key=lambda member: member != "delete"))


def _read_only(name: str, row: Option) -> bool:
    return row.dynamic == READ_ONLY or name.startswith("listener.name.")
