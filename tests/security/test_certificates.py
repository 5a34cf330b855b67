"""From when to when certificates are valid."""

from __future__ import annotations

import datetime

import pytest
import trustme

from kbroker.security.certificates import Validity, validity

DAY = 86_400


@pytest.mark.parametrize("year", [1999, 2049, 2050, 2077])
def test_the_two_times_are_read_whatever_their_form(year):
    begins = datetime.datetime(1998, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    ends = datetime.datetime(year, 6, 7, 8, 9, 10, tzinfo=datetime.UTC)
    identity = trustme.CA().issue_cert("localhost", not_before=begins, not_after=ends)

    found = validity(identity.private_key_and_cert_chain_pem.bytes().decode())

    assert (begins.timestamp(), ends.timestamp()) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_cannot_be_read_has_none(text):
    assert None is validity(text)


def test_bytes_that_are_missing_or_turned_break_nothing():
    import base64

    der = trustme.CA().cert_pem.bytes().decode()
    body = base64.b64decode("".join(der.split("\n")[1:-2]))
    for at in range(min(len(body), 120)):
        for wrong in (body[:at], body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]):
            text = base64.b64encode(wrong).decode()
            validity(f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("now", "fault"),
    [
        (0, "is not valid before 1970-04-11"),
        (100 * DAY, None),
        (171 * DAY, "expires on 1970-07-20, in 29 days"),
        (201 * DAY, "has expired on 1970-07-20"),
    ],
)
def test_what_is_wrong_with_it(now, fault):
    assert fault == Validity(100 * DAY, 200 * DAY).fault(now)
