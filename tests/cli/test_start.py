"""`kbroker start`: from options to settings, and how it ends."""

from __future__ import annotations

import gc

import pytest
from click.testing import CliRunner

from kbroker import __version__, is_compiled
from kbroker.cli import main, process
from kbroker.cli import start as start_module
from kbroker.errors import StartError
from kbroker.observe import logs


@pytest.fixture
def started(monkeypatch, tmp_path):
    """`started(options...)`: the command's result, and the settings a node would have run with."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(logs, "_outlet", logs.to_logging)
    ran = []

    def run(settings, on_ready):
        ran.append(settings)
        on_ready("somewhere")

    monkeypatch.setattr(process, "run", run)

    def invoke(*options):
        result = CliRunner().invoke(main, ["start", *map(str, options)])
        return result, ran.pop() if ran else None

    yield invoke
    gc.enable()


def listening(settings):
    return [(endpoint.protocol, endpoint.host, endpoint.port) for endpoint in settings.listeners]


def test_without_options_it_listens_on_loopback_and_keeps_data_at_home(started, tmp_path):
    result, settings = started()

    assert (0, [("PLAINTEXT", "localhost", 9092)]) == (result.exit_code, listening(settings))
    assert f"{tmp_path}/kbroker" == settings.log_dir


def test_one_line_says_that_it_serves(started):
    result, _ = started()

    build = " (compiled)" if is_compiled() else ""
    assert result.stdout.startswith(f"kbroker {__version__}{build} serving on somewhere, ready in ")
    assert result.stdout.endswith(" s\n")


@pytest.mark.parametrize(("compiled", "name"), [(True, "kbroker 1.2.3 (compiled)"), (False, "kbroker 1.2.3")])
def test_the_line_says_when_the_build_is_compiled(started, monkeypatch, compiled, name):
    monkeypatch.setattr(start_module, "__version__", "1.2.3")
    monkeypatch.setattr(start_module, "is_compiled", lambda: compiled)

    result, _ = started()

    assert result.stdout.startswith(f"{name} serving on somewhere, ready in ")


def test_port_and_data_dir_become_settings(started, tmp_path):
    _, settings = started("--port", 9999, "--data-dir", tmp_path / "data")

    assert [("PLAINTEXT", "localhost", 9999)] == listening(settings)
    assert f"{tmp_path}/data" == settings.log_dir


def test_set_stands_above_the_file(started, tmp_path):
    file = tmp_path / "server.properties"
    file.write_text("num.partitions=3\nlog.retention.hours=2\n")

    _, settings = started("--config", file, "--set", "num.partitions=5")

    assert (5, 2) == (settings.num_partitions, settings.log_retention_hours)


def test_port_may_name_a_port_of_the_files_listeners(started, tmp_path):
    file = tmp_path / "server.properties"
    file.write_text("listeners=PLAINTEXT://127.0.0.1:7000,OTHER://127.0.0.1:7001\n")

    result, settings = started(
        "--config",
        file,
        "--port",
        7000,
        "--set",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT",
    )

    assert 0 == result.exit_code, result.stderr
    assert [7000, 7001] == [endpoint.port for endpoint in settings.listeners]


def test_a_port_beside_other_listeners_is_refused(started, tmp_path):
    result, _ = started("--port", 9999, "--set", "listeners=PLAINTEXT://127.0.0.1:7000")

    assert 1 == result.exit_code
    assert "--port 9999 is none of listeners=PLAINTEXT://127.0.0.1:7000" in result.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--set", "num.partitionz=3"], "num.partitions"),
        (["--set", "num.partitions"], "name=value"),
        (["--config", "/nowhere/server.properties"], "/nowhere/server.properties"),
        (["--set", "listeners=PLAINTEXT://0.0.0.0:9092"], "--insecure"),
        (["--set", "log.dirs=A", "--data-dir", "B"], "--data-dir B and --set log.dirs=A both"),
    ],
)
def test_a_refusal_is_one_sentence_on_stderr(started, options, named):
    result, settings = started(*options)

    assert (1, "", None) == (result.exit_code, result.stdout, settings)
    assert result.stderr.startswith("kbroker cannot start: ")
    assert named in result.stderr
    assert 1 == result.stderr.count("\n")


@pytest.mark.parametrize("option", ["--data-dir", "--config"])
def test_an_empty_path_is_refused(started, option):
    """A shell makes it of "$UNSET": the data must not go to another place than was meant."""
    result, settings = started(option, "")

    assert (2, None) == (result.exit_code, settings)
    assert f"Error: {option} is empty: give a path, or leave {option} out" in result.stderr


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [
        ("KBROKER_LOG", "xml", "text, json"),
        ("KBROKER_LOG_LEVEL", "loud", "debug, info, warning, error"),
    ],
)
def test_an_unknown_kind_of_log_lines_is_refused(started, monkeypatch, name, value, choices):
    monkeypatch.setenv(name, value)

    result, _ = started()

    assert (1, f"kbroker cannot start: {name}={value}: choose one of {choices}\n") == (
        result.exit_code,
        result.stderr,
    )


def test_data_dir_stands_above_the_file(started, tmp_path):
    file = tmp_path / "server.properties"
    file.write_text("log.dirs=/elsewhere\n")

    _, settings = started("--config", file, "--data-dir", tmp_path / "data")

    assert f"{tmp_path}/data" == settings.log_dir


def test_a_default_replication_factor_that_one_broker_cannot_give_is_a_warning(started):
    result, settings = started("--set", "default.replication.factor=3")

    assert (0, 3) == (result.exit_code, settings.default_replication_factor)
    assert [line for line in result.stderr.splitlines() if "warning" in line and "factor=3" in line]


def test_insecure_listens_anywhere(started):
    result, settings = started("--insecure", "--set", "listeners=PLAINTEXT://0.0.0.0:9092")

    assert (0, [("PLAINTEXT", "0.0.0.0", 9092)]) == (result.exit_code, listening(settings))


def test_a_node_that_cannot_start_ends_it_with_its_sentence(started, monkeypatch):
    def run(settings, on_ready):
        raise StartError("port 9092 is in use; choose another with --port")

    monkeypatch.setattr(process, "run", run)

    result, _ = started()

    assert (1, "kbroker cannot start: port 9092 is in use; choose another with --port\n") == (
        result.exit_code,
        result.stderr,
    )
