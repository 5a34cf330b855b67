"""Somebody's project whose tests stand on our fixtures: its pytest run is a process of its own, as theirs would be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.compat.application import PROGRAMS
from tests.support.peers import Peer

LIMIT_S = 280


def test_a_project_tests_its_consumer_groups_on_our_fixtures(
    peer: Peer, peer_kind: str, tmp_path: Path
) -> None:
    """Against Kafka the tests that need a broker of their own are skipped, as documented."""
    project = shutil.copytree(PROGRAMS / "pytest_project", tmp_path / "project")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "KBROKER_"))}
    if peer_kind == "kafka":
        env["KBROKER_TEST_BOOTSTRAP"] = peer.plain.servers

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    expected = "2 passed, 1 skipped" if peer_kind == "kafka" else "3 passed"
    assert re.search(rf"^{expected}\b", done.stdout, re.MULTILINE), done.stdout
