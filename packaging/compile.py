"""A build hook: compiles the path of a Produce, a Fetch and a commit (docs/decisions/0010: what that gains, and why so).

The modules are named in pyproject.toml. They stay ordinary Python, checked by mypy --strict; mypyc makes an extension of
each, and where there is none for the Python at hand the module beside it is imported. Off unless asked for:

    HATCH_BUILD_HOOK_ENABLE_CUSTOM=true python -m pip wheel --no-deps .

An editable install is never compiled: what is edited would not be what runs.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The types are checked by `make types`; here an error would only be one in a library that is not installed.
MYPY_OPTIONS = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent")


class CompileHook(BuildHookInterface[Any]):
    """What hatchling calls before and after it packs a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and have the extensions packed beside their sources."""
        if version == "editable":
            return
        # hatchling calls `finalize` of a wheel that was packed; where packing fails, the folder goes with this process
        self._work = tempfile.TemporaryDirectory(prefix="kbroker-compile-")
        modules = [name.replace(".", "/") + ".py" for name in self.config["modules"]]
        try:
            built = _compile(Path(self.root), modules, Path(self._work.name))
        except BaseException:  # mypyc says SystemExit
            self._work.cleanup()
            raise
        build_data["force_include"].update({str(path): name for name, path in built.items()})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing behind."""
        if version != "editable":
            self._work.cleanup()


def _compile(root: Path, modules: list[str], work: Path) -> dict[str, Path]:
    """Extensions of `modules`: where they belong in the wheel -> where they are."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    os.chdir(root)
    extensions = mypycify(
        [*MYPY_OPTIONS, *modules],
        opt_level="2",
        debug_level="0",
        target_dir=str(work / "c"),
        group_name="kbroker",
    )
    command: Any = Distribution({"name": "kbroker", "ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(work / "lib"), str(work / "temp")
    command.ensure_finalized()
    command.run()
    return {str(path.relative_to(work / "lib")): path for path in (work / "lib").rglob("*.so")}
