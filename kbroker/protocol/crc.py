"""CRC-32C, from the `crc32c` package's extension module alone.

The package's `__init__` reads its own version through importlib.metadata and builds a command line: 26 ms of every
start, 30 times what the extension itself takes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

from kbroker.seams import Buffer


def _load() -> Callable[[Buffer], int]:
    package = PathFinder.find_spec("crc32c")
    spec = package and PathFinder.find_spec("_crc32c", package.submodule_search_locations)
    if spec is None or spec.loader is None:  # a build that is laid out otherwise
        from crc32c import crc32c as whole

        return whole
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[Buffer], int] = module.crc32c
    return found


crc32c = _load()
