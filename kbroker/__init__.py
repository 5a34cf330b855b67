"""kbroker: a log broker that existing Kafka clients use unchanged."""

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Whether the path of a Produce and a Fetch is compiled here, as in a wheel of one platform; else it is interpreted."""
    from importlib.util import find_spec

    spec = find_spec("kbroker.turn")
    return spec is not None and not str(spec.origin).endswith(".py")
