"""Where to begin, as people write it."""

from __future__ import annotations

import pytest

from kbroker.cli.places import BEGINNING, END, Where, parse

NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("beginning", BEGINNING),
        ("earliest", BEGINNING),
        (" END ", END),
        ("latest", END),
        ("0", Where(offset=0)),
        ("42", Where(offset=42)),
        ("-10", Where(last=10)),
        ("@1700000000000", Where(time_ms=1_700_000_000_000)),
        ("90s", Where(time_ms=NOW - 90_000)),
        ("15m", Where(time_ms=NOW - 900_000)),
        ("2h", Where(time_ms=NOW - 7_200_000)),
        ("1d", Where(time_ms=NOW - 86_400_000)),
        ("99999999d", Where(time_ms=0)),
        ("2023-11-14T22:13:20Z", Where(time_ms=1_700_000_000_000)),
        ("2023-11-14T23:13:20.500+01:00", Where(time_ms=1_700_000_000_500)),
        ("1969-01-01T00:00:00Z", Where(time_ms=0)),
    ],
)
def test_a_place(text, expected):
    assert expected == parse(text, NOW)


@pytest.mark.parametrize("text", ["", "-", "@", "yesterday", "5 minutes", "1.5", "0x10", "--3"])
def test_what_is_no_place(text):
    with pytest.raises(ValueError):
        parse(text, NOW)
