"""The build hook that compiles: what it leaves behind. That it compiles is seen by whatever runs on its build."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[2] / "packaging" / "compile.py"


@pytest.fixture
def compile_py():
    """The module; no package holds it."""
    spec = importlib.util.spec_from_file_location("kbroker_compile_hook", HOOK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of one module; the hook goes there."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def hook(compile_py, root):
    config = {"modules": ["one"]}
    return compile_py.CompileHook(str(root), config, None, None, str(root / "dist"), "wheel")


def build_data():
    return {"force_include": {}}


def test_a_module_that_does_not_compile_leaves_no_folder(compile_py, root, temporary, capfd):
    (root / "one.py").write_text("def broken(:\n")

    with pytest.raises(SystemExit):
        hook(compile_py, root).initialize("standard", build_data())

    assert [] == list(temporary.iterdir())
    assert "one.py:1: error" in "".join(capfd.readouterr())


def test_the_folder_is_there_until_the_wheel_is_packed(compile_py, root, temporary, monkeypatch):
    def compiled(root, modules, work):
        (work / "one.so").write_bytes(b"\x7fELF")
        return {"one.so": work / "one.so"}

    monkeypatch.setattr(compile_py, "_compile", compiled)
    one, data = hook(compile_py, root), build_data()

    one.initialize("standard", data)

    [(built, name)] = data["force_include"].items()
    assert (b"\x7fELF", "one.so") == (Path(built).read_bytes(), name)
    one.finalize("standard", data, "kbroker.whl")
    assert [] == list(temporary.iterdir())


def test_an_editable_install_makes_no_folder(compile_py, root, temporary):
    one, data = hook(compile_py, root), build_data()

    one.initialize("editable", data)
    one.finalize("editable", data, "kbroker.whl")

    assert ([], {}) == (list(temporary.iterdir()), data["force_include"])
