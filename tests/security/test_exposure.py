"""What may listen where."""

from __future__ import annotations

import pytest

from kbroker.errors import StartError
from kbroker.model import Endpoint
from kbroker.security.exposure import check_exposure, is_loopback


def check(host, protocol="PLAINTEXT", *, client_auth="none", insecure=False):
    check_exposure([Endpoint("OUTSIDE", host, 9092, protocol)], lambda name: client_auth, insecure=insecure)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_needs_nothing(host):
    assert is_loopback(host)
    check(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "broker.example"])
def test_beyond_loopback_plain_text_is_refused_with_three_cures(host):
    with pytest.raises(StartError, match=r"listener OUTSIDE on .*required.*127\.0\.0\.1.*--insecure"):
        check(host)


def test_tls_without_client_authentication_is_not_enough():
    with pytest.raises(StartError):
        check("0.0.0.0", "SSL", client_auth="requested")


def test_tls_with_client_certificates_may_listen_anywhere():
    check("0.0.0.0", "SSL", client_auth="required")


def test_insecure_allows_anything():
    check("0.0.0.0", insecure=True)
