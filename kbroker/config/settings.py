"""`Settings`: a broker's configuration, resolved: static values, dynamic ones, defaults, and the topics' beside them.

Knows the tables of options and the chain in which a value is looked up. Knows no file of the broker and no cluster:
dynamic values are told to it (`apply_dynamic`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from kbroker.config import listeners as lst
from kbroker.config.alter import ConfigOp
from kbroker.config.broker import BROKER_OPTIONS, BrokerOptions
from kbroker.config.checks import check_alter, check_topic
from kbroker.config.options import BadValue, Option
from kbroker.config.properties import parse_lines
from kbroker.config.tls import TlsOptions
from kbroker.config.topics import TOPIC_OPTIONS, TopicConfig
from kbroker.errors import StartError
from kbroker.model import BrokerId, Endpoint

if TYPE_CHECKING:
    from kbroker.config.describe import ConfigRow


class Settings(BrokerOptions):
    """Every option with an effect is a field, named as in `BrokerOptions`; fields below are made from several.

    A field follows the dynamic values: read it where it is used, do not keep it.
    """

    node_id: BrokerId
    log_dir: str  # the one folder of data
    listeners: tuple[Endpoint, ...]  # to listen on; host "" is every address, localhost both loopbacks
    advertised_listeners: tuple[Endpoint, ...]  # one per listener name, in the order of `listeners`
    inter_broker_listener: str  # name of the listener between brokers

    def __init__(
        self,
        static: Mapping[str, str],
        *,
        environment: Mapping[str, str] | None = None,
        host_name: Callable[[], str] | None = None,
    ) -> None:
        self.ignored: list[str] = []  # given, known to Kafka, without effect here, in words: for one log line
        self.unfit: dict[
            str, str
        ] = {}  # dynamic values that do not parse, with the reason: they count as not set
        self.static = dict(static)  # what was given, by option name
        self.dynamic: dict[str, str] = {}  # of this broker
        self.dynamic_default: dict[str, str] = {}  # of all brokers
        self._topics: WeakValueDictionary[frozenset[tuple[str, str]], TopicConfig] = WeakValueDictionary()
        self._plain_topic: TopicConfig | None = None  # of a topic without overrides
        self._take_one_id()
        self._check_static()
        self._resolve()
        self._derive(environment or {}, host_name or _host_name)

    @classmethod
    def load(
        cls,
        file: Mapping[str, str] | str | os.PathLike[str] | None = None,
        overrides: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        host_name: Callable[[], str] | None = None,
    ) -> Settings:
        """From a `server.properties` (its path, or its values) and "name=value" texts, which win.

        `environment` is asked for XDG_DATA_HOME and HOME. StartError names the option, the value and the cure.
        """
        lines: dict[str, int] = {}  # of what the file gives
        if file is None or isinstance(file, Mapping):
            static = dict(file or {})
        else:
            static = {}
            for name, (value, line) in _read(file).items():
                static[name], lines[name] = value, line
        for text in overrides:
            name, separator, value = text.partition("=")
            if not separator or not name.strip():
                raise StartError(f"'{text}' is not name=value: write for example num.partitions=3")
            static[name.strip()] = value.strip()
            lines.pop(name.strip(), None)
        try:
            return cls(static, environment=environment, host_name=host_name)
        except StartError as error:
            raise StartError(_placed(str(error), file, lines)) from None

    # Values ----------------------------------------------------------------------------------------------------

    def value(self, name: str) -> Any:
        """The typed value of any broker option that Kafka or kbroker knows, by its name; KeyError for other names."""
        row = self.option(name)
        if row is None:
            raise KeyError(name)
        return self.found(name, row)

    def option(self, name: str) -> Option | None:
        """The row of a broker option, whether it has an effect here or not; None: nobody knows it."""
        return BROKER_OPTIONS.get(name) or _inert(name)

    def found(self, name: str, row: Option) -> Any:
        """The value of the broker option `name`, whose row is `row` (a listener's option has the row of the broker's)."""
        if name == "broker.id":
            return self.node_id  # also where neither is given
        prefix = name.removesuffix(row.name)
        return self._found(row, prefix)

    def tls(self, listener: str, dynamic: Mapping[str, str] | None = None) -> TlsOptions:
        """The TLS options of a listener: its own (listener.name.<listener>.ssl.*), else the broker's.

        `dynamic`: as they would be with these in place of this broker's dynamic values.
        """
        prefix = f"{lst.PREFIX}{listener.lower()}."
        layers = None if dynamic is None else (dynamic, self.dynamic_default, self.static)
        return TlsOptions(
            **{
                row.attribute.removeprefix("ssl_"): self._found(row, prefix, layers)
                for name, row in BROKER_OPTIONS.items()
                if name.startswith("ssl.")
            }
        )

    def tls_listeners(self, names: Iterable[str]) -> list[str]:
        """The listeners with TLS that one of these options is about: its own, or the broker's that all of them have."""
        found = [endpoint.listener for endpoint in self.listeners if endpoint.protocol == "SSL"]
        given = tuple(names)
        return [
            listener
            for listener in dict.fromkeys(found)
            if any(name.startswith(("ssl.", f"{lst.PREFIX}{listener.lower()}.ssl.")) for name in given)
        ]

    def check_exposure(self, insecure: bool) -> None:
        """StartError where another machine could reach a listener without TLS and authentication, unless `insecure`."""
        for endpoint in self.listeners:
            if insecure or lst.is_loopback(endpoint.host):
                continue
            secured = endpoint.protocol == "SSL"
            if secured and self.tls(endpoint.listener).client_auth == "required":
                continue
            where = f"listener {endpoint.listener}://{endpoint.host}:{endpoint.port}"
            if endpoint.host not in lst.EVERY_ADDRESS:
                _must_resolve(endpoint.host)
            if secured:
                raise StartError(
                    f"{where} lets other machines in without a certificate of theirs: set ssl.client.auth=required, "
                    "bind it to localhost, or start with --insecure"
                )
            raise StartError(
                f"{where} lets other machines in without TLS and authentication: bind it to localhost, give it "
                "protocol SSL with ssl.client.auth=required, or start with --insecure"
            )

    def topic_config(self, overrides: Mapping[str, str]) -> TopicConfig:
        """The configuration of a topic with these overrides: one object for equal ones."""
        if not overrides:
            if self._plain_topic is None:
                self._plain_topic = self._topic(overrides)
            return self._plain_topic
        key = frozenset(overrides.items())
        config = self._topics.get(key)
        if config is None:
            config = self._topics[key] = self._topic(overrides)
        return config

    def apply_dynamic(self, name: str, values: Mapping[str, str]) -> None:
        """The dynamic values of a broker (its id as text) or of all ("") are now `values`."""
        if name == "":
            self.dynamic_default = dict(values)
        elif name == str(self.node_id):
            self.dynamic = dict(values)
        else:
            return
        self.unfit.clear()
        self._topics.clear()
        self._plain_topic = None
        self._resolve()

    def nearest(self, name: str) -> str:
        """A hint at the option that a wrong name may have meant, or at where such options are."""
        from difflib import get_close_matches

        from kbroker.config.known import CLIENT_OPTIONS, KNOWN

        if name in CLIENT_OPTIONS:
            return ": it is an option of producers or consumers, set it there"
        near = get_close_matches(name, [*BROKER_OPTIONS, *KNOWN, *TOPIC_OPTIONS], 1, 0.6)
        if near:
            return f": did you mean {near[0]}?"
        own = ", ".join(each for each in BROKER_OPTIONS if each.startswith("kbroker."))
        return f": give those of Kafka's server.properties (its broker configs), or kbroker's own ({own})"

    # What requests ask -----------------------------------------------------------------------------------------

    def describe_topic(self, overrides: Mapping[str, str]) -> list[ConfigRow]:
        """All options of a topic with these overrides, for DescribeConfigs."""
        from kbroker.config.describe import describe_topic

        return describe_topic(self, overrides)

    def describe_broker(self) -> list[ConfigRow]:
        """All options of this broker, for DescribeConfigs."""
        from kbroker.config.describe import describe_broker

        return describe_broker(self)

    def describe_all_brokers(self) -> list[ConfigRow]:
        """What is set dynamically for all brokers (the resource without a name), for DescribeConfigs."""
        from kbroker.config.describe import describe_all_brokers

        return describe_all_brokers(self)

    def describe_group(self, overrides: Mapping[str, str]) -> list[ConfigRow]:
        """All options of a group with these overrides, for DescribeConfigs."""
        from kbroker.config.describe import describe_group

        return describe_group(self, overrides)

    def describe_client_metrics(self, overrides: Mapping[str, str]) -> list[ConfigRow]:
        """All options of a client metrics subscription with these overrides, for DescribeConfigs."""
        from kbroker.config.describe import describe_client_metrics

        return describe_client_metrics(overrides)

    def check_topic(self, configs: Mapping[str, str | None]) -> dict[str, str]:
        """The overrides of a topic to be created; INVALID_CONFIG for what cannot be."""
        return check_topic(self, configs)

    def check_alter(
        self,
        type: int,
        name: str,
        ops: Sequence[ConfigOp],
        current: Mapping[str, str],
        *,
        replace: bool = False,
    ) -> list[ConfigOp]:
        """The changes to propose (`commands.ConfigChange.ops`) for what a request wants of a topic or broker that has
        `current` set; KafkaError for what cannot be."""
        return check_alter(self, type, name, ops, current, replace=replace)

    # Looking up ------------------------------------------------------------------------------------------------

    def _layers(self) -> tuple[Mapping[str, str], ...]:
        return self.dynamic, self.dynamic_default, self.static

    def _found(
        self, row: Option, prefix: str = "", layers: tuple[Mapping[str, str], ...] | None = None
    ) -> Any:
        """The value of a broker option: dynamic of the broker, dynamic of all, static, default; else None."""
        for name in (prefix + row.name, row.name) if prefix else (row.name,):
            for layer in layers or self._layers():
                text = layer.get(name)
                if text is None:
                    continue
                try:
                    return row.parse(text)
                except BadValue as error:
                    self.unfit[name] = f"{_shown(row, text)}: {error}"
        return row.default

    def _resolve(self) -> None:
        """Fill the fields."""
        given = self.dynamic.keys() | self.dynamic_default.keys() | self.static.keys()
        fields = vars(self)
        for name, row in BROKER_OPTIONS.items():
            fields[row.attribute] = self._found(row) if name in given else row.default

    def _topic(self, overrides: Mapping[str, str]) -> TopicConfig:
        values = {}
        for name, row in TOPIC_OPTIONS.items():
            value = None
            text = overrides.get(name)
            if text is not None:
                try:
                    value = row.parse(text)
                except BadValue as error:
                    self.unfit[name] = f"{text}: {error}"
            values[row.attribute] = self._topic_default(row) if value is None else value
        return TopicConfig(**values)

    def _topic_default(self, row: Option) -> Any:
        """What a topic without an override of `row` has."""
        for name, factor in row.falls_back_to:
            value = getattr(self, BROKER_OPTIONS[name].attribute)
            if value is not None:
                return value if factor == 1 else value * factor
        return row.default

    # Starting --------------------------------------------------------------------------------------------------

    def _take_one_id(self) -> None:
        """`node.id` and `broker.id` are two names for one number, given by either."""
        given = {name: self.static[name] for name in ("node.id", "broker.id") if name in self.static}
        if len({text.strip() for text in given.values()}) > 1:
            raise StartError(
                f"broker.id={given['broker.id']} and node.id={given['node.id']} are the same option: give node.id alone"
            )
        for text in given.values():
            self.static |= {"node.id": text, "broker.id": text}

    def _check_static(self) -> None:
        """Every name known, every value within its bounds."""
        for name, text in self.static.items():
            row = self.option(name)
            if row is None:
                raise StartError(f"{name} is no option of Kafka or kbroker{self.nearest(name)}")
            if row.cure and text.strip():
                raise StartError(f"{name}={text} cannot be had: {row.cure}")
            if row.inert:
                self.ignored.append(_ignored(name))
            try:
                row.parse(text)
            except BadValue as error:
                cure = f"give it {row.allowed}" + ("" if text.strip() else ", or leave it out")
                raise StartError(f"{name}={_shown(row, text)} cannot be used ({error}): {cure}") from None
        self.ignored.sort()

    def _derive(self, environment: Mapping[str, str], host_name: Callable[[], str]) -> None:
        self.log_dir = self._one_log_dir(environment)
        protocols = lst.parse_protocol_map(self.protocol_map_option)
        controllers = self.controller_listener_names or ()
        self.listeners = lst.parse_listeners(self.listeners_option, protocols, controllers)
        self.advertised_listeners = lst.advertised(
            self.advertised_listeners_option, self.listeners, controllers, host_name
        )
        self.inter_broker_listener = self._inter_broker_listener()
        self._check_roles()
        if self.max_connections_per_ip == 0 and not self.max_connections_per_ip_overrides:
            raise StartError(
                "max.connections.per.ip=0 lets nobody in: name those who may come in "
                "max.connections.per.ip.overrides, or give it 1 or more"
            )

    def _one_log_dir(self, environment: Mapping[str, str]) -> str:
        folders = self.log_dirs_option or self.log_dir_option
        if not folders:
            home = environment.get("XDG_DATA_HOME") or f"{environment.get('HOME') or '~'}/.local/share"
            folders = (f"{home}/kbroker",)
        if len(folders) > 1:
            raise StartError(
                f"log.dirs names {len(folders)} folders, kbroker uses one log directory: name one, or start one broker "
                "for each"
            )
        return os.path.abspath(os.path.expanduser(folders[0]))

    def _inter_broker_listener(self) -> str:
        names = [endpoint.listener for endpoint in self.listeners]
        name = self.inter_broker_listener_name
        if name is None:
            protocol = self.static.get("security.inter.broker.protocol")
            for endpoint in self.listeners:
                if endpoint.protocol == protocol:
                    return endpoint.listener
            return names[0]
        if name.upper() not in names:
            raise StartError(
                f"inter.broker.listener.name={name} is none of the listeners: name one of {', '.join(names)}"
            )
        return name.upper()

    def _check_roles(self) -> None:
        roles = self.static.get("process.roles", "broker")
        if "broker" not in (role.strip() for role in roles.split(",")):
            raise StartError(
                f"process.roles={roles} has no broker in it: every kbroker is one, write process.roles=broker"
            )
        for endpoint in self.listeners:
            if endpoint.protocol.startswith("SASL"):
                raise StartError(
                    f"listener {endpoint.listener} asks for {endpoint.protocol}, and there is no SASL here yet: "
                    "use SSL with ssl.client.auth=required"
                )


def _placed(sentence: str, file: object, lines: Mapping[str, int]) -> str:
    """The sentence behind file and line, where it begins with an option that the file gave."""
    name = sentence.partition(" ")[0].partition("=")[0].rstrip(":")
    if name == "listener":  # one of them
        name = "listeners"
    return f"{file} line {lines[name]}: {sentence}" if name in lines else sentence


def _read(path: str | os.PathLike[str]) -> dict[str, tuple[str, int]]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise StartError(f"{path} cannot be read ({error.strerror}): name a server.properties file") from None
    return parse_lines(data, str(path))


def _inert(name: str) -> Option | None:
    """The row of a name that Kafka knows and that does nothing here, also behind a listener's prefix."""
    from kbroker.config import known

    return known.find(name)


def _ignored(name: str) -> str:
    """A name without effect; where it is a topic's option, with the broker's that has one."""
    topics = TOPIC_OPTIONS.get(name)
    if topics is None or not topics.falls_back_to:
        return name
    brokers = topics.falls_back_to[0][0]
    return name if BROKER_OPTIONS[brokers].inert else f"{name} (a topic's; the broker's is {brokers})"


def _must_resolve(host: str) -> None:
    import socket

    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise StartError(
            f"listeners: the host {host} has no address here ({error.strerror}): name one that has"
        ) from None


def _shown(row: Option, text: str) -> str:
    return "[hidden]" if row.sensitive else text


def _host_name() -> str:
    import socket

    return socket.gethostname()
