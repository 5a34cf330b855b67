"""What the texts tell people to type does what they say: certificates, first lines of clients, tests. Links lead on."""

from __future__ import annotations

import os
import re
import selectors
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from kbroker.config import Settings
from kbroker.security.tls import build_server_context
from kbroker.testing import Broker

ROOT = Path(__file__).resolve().parent.parent
USAGE = (ROOT / "docs/usage.md").read_text()
TEXTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tests/compat/README.md"]
LIMIT_S = 60

# A handshake in TLS 1.3 takes three turns of each side, and one to read what the client's certificate is answered with.
TURNS_MAX = 6


def blocks(heading, language):
    """The fenced blocks of a language in the section below a heading of the guide."""
    section = USAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def follow(recipe, folder):
    """Type the block's lines into a shell, up to the one that starts a broker."""
    typed = re.sub(r"^\$ ", "", recipe.partition("$ kbroker start")[0], flags=re.MULTILINE)
    subprocess.run(["sh", "-ec", typed], cwd=folder, check=True, capture_output=True, timeout=LIMIT_S)


def recipe_with(text):
    (found,) = [block for block in blocks("TLS", "console") if text in block]
    return found


def strict(context):
    """As `ssl.create_default_context` makes it from Python 3.13 on."""
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def shake_hands(server, client):
    """The names of the server's and the client's certificate, as the other side sees them; SSLError where one refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    served = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(TURNS_MAX):
        for side in (asking, served):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return tuple(name_of(side.getpeercert()) for side in (asking, served))


def name_of(certificate):
    return (
        dict(part for parts in certificate["subject"] for part in parts)["commonName"]
        if certificate
        else None
    )


def test_the_certificate_of_a_broker_alone_is_accepted_by_strict_clients(tmp_path):
    follow(recipe_with("cert.pem > broker.pem"), tmp_path)
    options = {
        "listeners": "SSL://localhost:9093",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": f"{tmp_path}/broker.pem",
    }
    server = build_server_context(Settings.load(options).tls("SSL"))

    seen = shake_hands(server, strict(ssl.create_default_context(cafile=tmp_path / "cert.pem")))

    assert ("localhost", None) == seen


def test_certificates_of_both_sides_are_accepted_by_strict_clients_and_a_strict_broker(tmp_path):
    """RFC 5280: an authority says what its key is for. OpenSSL's `req -x509` does not by itself."""
    follow(recipe_with("our authority"), tmp_path)
    (properties,) = [block for block in blocks("TLS", "properties") if "listeners=" in block]
    (tmp_path / "server.properties").write_text(properties.replace("/etc/kbroker", str(tmp_path)))
    server = build_server_context(Settings.load(tmp_path / "server.properties").tls("SSL"))
    client = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    client.load_cert_chain(tmp_path / "client.pem")

    seen = shake_hands(strict(server), strict(client))

    assert ("broker", "client") == seen


@pytest.mark.parametrize(
    "code", blocks("First lines", "python"), ids=["kafka-python", "confluent", "aiokafka"]
)
def test_first_lines_of_a_client_print_what_they_have_sent(code):
    with Broker() as broker:
        code = code.replace("localhost:9092", broker.bootstrap_servers)
        program = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(program.stdout, selectors.EVENT_READ)
                assert selector.select(LIMIT_S), "nothing was printed"
            assert b"hello\n" == program.stdout.readline()
        finally:
            program.kill()
            program.communicate(timeout=LIMIT_S)


@pytest.mark.parametrize("text", ["README.md", "docs/testing.md"])
def test_the_first_test_of_a_text_passes_in_a_folder_of_its_own(text, tmp_path):
    test = re.findall(r"^```python\n(.*?)^```$", (ROOT / text).read_text(), re.DOTALL | re.MULTILINE)[0]
    (tmp_path / "test_first.py").write_text(test)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "KBROKER_"))}

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            tmp_path,
            "test_first.py",
        ],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )

    assert "1 passed" in done.stdout, done.stdout + done.stderr


def anchors(text):
    """The names that headings can be linked by, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_within_the_project_lead_to_what_is_there(text):
    for link in re.findall(r"\]\(([^)\s]+)\)", text.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (text.parent / path) if path else text
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link
