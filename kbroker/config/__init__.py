"""Configuration: Kafka's names, types, bounds and defaults, and the values of one broker and its topics.

Importing it reads no table of what has no effect here. May not import anything but errors and model.
"""

from kbroker.config.alter import ConfigOp
from kbroker.config.options import BadValue, ConfigSource, ConfigType, Option, ResourceType
from kbroker.config.settings import Settings
from kbroker.config.tls import TlsOptions
from kbroker.config.topics import TopicConfig

__all__ = [
    "BadValue",
    "ConfigOp",
    "ConfigSource",
    "ConfigType",
    "Option",
    "ResourceType",
    "Settings",
    "TlsOptions",
    "TopicConfig",
]
