"""Limits by address."""

import pytest

from kbroker.config.addresses import check_per_ip, per_ip


def test_addresses_are_written_as_sockets_do():
    text = "10.0.0.1:3, [2001:DB8::0:1]:4,2001:db8::2:5,localhost:0,"

    expected = {"10.0.0.1": 3, "2001:db8::1": 4, "2001:db8::2": 5, "127.0.0.1": 0, "::1": 0}
    assert expected == per_ip(text)
    assert check_per_ip(text) is None
    assert {} == per_ip("")


@pytest.mark.parametrize(
    "text",
    ["10.0.0.1", "10.0.0.1:", "10.0.0.1:-1", "10.0.0.1:x", "host.example:1", ":1", "10.0.0.1:9999999999"],
)
def test_what_is_no_address_with_a_number_is_refused(text):
    assert check_per_ip(text)
