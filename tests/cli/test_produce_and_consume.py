"""`kbroker produce` and `kbroker consume`: lines, keys, JSON, where to begin and where to stop."""

from __future__ import annotations

import pytest

from kbroker.testing import Broker


def values(broker, topic):
    return sorted(each.value for each in broker.records(topic))


def test_each_line_is_a_record(cli, broker, topic):
    cli("produce", topic, stdin=b"one\n\ntwo\xff\nlast without an end")

    assert [b"", b"last without an end", b"one", b"two\xff"] == values(broker, topic)


def test_what_was_produced_is_consumed(cli, topic):
    cli("produce", topic, "-p", 0, stdin=b"one\ntwo\nthree\n")

    assert "one\ntwo\nthree\n" == cli("consume", topic, "-e").out


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_every_compression_and_acknowledgement(cli, broker, topic, codec, acks):
    cli("produce", topic, "-p", 2, "--acks", acks, "-z", codec, stdin=b"value\n" * 100)

    while acks == "0" and len(broker.records(topic)) < 100:
        pass  # nobody said when they are there; the test's own limit ends this
    assert [b"value"] * 100 == values(broker, topic)


def test_more_than_a_batch_holds_goes_in_several(cli, broker, topic):
    big = b"x" * 300_000

    done = cli("produce", topic, "-p", 0, "-o", "json", stdin=(big + b"\n") * 9 + b"small\n" * 120_000)

    assert 120_009 == done.json["records"]
    records = broker.records(topic, 0)
    assert (120_009, big, b"small") == (len(records), records[8].value, records[-1].value)
    assert list(range(120_009)) == [each.offset for each in records]


def test_keys_go_where_other_producers_put_them(cli, broker, topic):
    """Java's and librdkafka's (murmur2_random) put these there, of three partitions."""
    cli("produce", topic, "-K", ":", "-H", "from=here", stdin=b"foobar:1\n21:2\nabc:a:b\n")

    found = {
        each.key: (part, each.value, each.headers)
        for part in range(3)
        for each in broker.records(topic, part)
    }
    hashes = ((b"foobar", -790332482), (b"21", -973932308), (b"abc", 479470107))
    expected = {key: (hashed & 0x7FFFFFFF) % 3 for key, hashed in hashes}
    headers = (("from", b"here"),)
    assert {
        b"foobar": (expected[b"foobar"], b"1", headers),
        b"21": (expected[b"21"], b"2", headers),
        b"abc": (expected[b"abc"], b"a:b", headers),
    } == found


def test_a_separator_may_be_typed_as_an_escape(cli, topic):
    cli("produce", topic, "-p", 0, "-K", r"\t", stdin=b"k\tv\n")

    assert "k=>v\n" == cli("consume", topic, "-e", "-K", "=>").out


def test_a_topic_that_cannot_be_created_by_itself(cli):
    with Broker({"default.replication.factor": "3"}) as small:
        failed = cli("produce", "new", "-b", small.bootstrap_servers, stdin=b"x\n", code=1)

    assert "its default.replication.factor is more than there are brokers" in failed.err
    assert "kbroker topic create new --replication-factor 1 (INVALID_REPLICATION_FACTOR)" in failed.err


@pytest.mark.parametrize("verb", ["produce", "consume"])
def test_what_cannot_be_a_topics_name(cli, verb):
    failed = cli(verb, "b/d", stdin=b"x\n", code=1)

    assert failed.err.startswith(
        "Error: 'b/d' cannot be the name of a topic: that has letters of ASCII, digits, "
    )


def test_json_lines_go_in_and_come_out_the_same(cli, broker, topic):
    line = (
        b'{"key": "k", "value": {"a": [1, 2]}, "headers": {"h": "1", "n": null}, "partition": 1, "timestamp": 4}\n'
        b'{"key_base64": "/w==", "value": null, "partition": 1, "timestamp": 5}\n'
        b'{"value": "text", "headers": [["h", "1"], ["h", "2"]], "partition": 1, "timestamp": 6}\n'
    )
    cli("produce", topic, "-i", "json", stdin=line)

    first = cli("consume", topic, "-e", "-o", "json")
    copy = broker.create_topic(f"{topic}-copy", partitions=3)
    cli("produce", copy, "-i", "json", stdin=first.out.encode())
    second = cli("consume", copy, "-e", "-o", "json")

    place = {"topic": topic, "partition": 1}
    assert [
        {
            **place,
            "offset": 0,
            "timestamp": 4,
            "key": "k",
            "value": '{"a": [1, 2]}',
            "headers": {"h": "1", "n": None},
        },
        {**place, "offset": 1, "timestamp": 5, "key_base64": "/w==", "value": None},
        {
            **place,
            "offset": 2,
            "timestamp": 6,
            "key": None,
            "value": "text",
            "headers": [["h", "1"], ["h", "2"]],
        },
    ] == first.lines
    assert [{**each, "topic": copy} for each in first.lines] == second.lines


@pytest.mark.parametrize(
    ("args", "stdin", "said"),
    [
        (["-K", ":"], b"a:b\nno key\n", "line 2 has no ':' after its key"),
        (["-i", "json"], b'{"value": "x"}\n{"value": \n', "line 2 is not a record in JSON"),
        (["-i", "json"], b'{"value_base64": "!"}\n', "line 1 is not a record in JSON"),
        (
            ["-i", "json"],
            b'{"key": "k", "valeu": "x"}\n',
            "line 1 is not a record in JSON: there is no field 'valeu': did you mean value?",
        ),
        (["-i", "json"], b'{"\x1b[2J": "x"}\n', "is not a record in JSON"),
        (
            ["-i", "json"],
            b'{"payload": "x"}\n',
            "there is no field 'payload': choose among value, key, value_base64, key_base64, headers, ",
        ),
        (["-i", "json"], b'{"value": "x", "partition": 9}\n', "has no partition 9: it has 3"),
        (["-p", "3"], b"x\n", "has no partition 3: it has 3"),
        (
            [],
            b"x" * 2_000_000,
            "; kbroker topic alter TOPIC --config max.message.bytes=N lets larger ones in (MESSAGE_TOO_LARGE)",
        ),
    ],
)
def test_lines_that_cannot_be_sent_are_named(cli, topic, args, stdin, said):
    failed = cli("produce", topic, *args, stdin=stdin, code=1)

    assert said in failed.err
    assert 1 == failed.err.count("\n")


def test_what_came_before_a_bad_line_is_told(cli, broker, topic):
    """Lines are taken in chunks: those of the bad line's own are not sent."""
    chunk = b'{"value": "good"}\n' * 50_000

    failed = cli("produce", topic, "-i", "json", stdin=chunk + b"bad\n", code=1)

    assert f"; {len(broker.records(topic))} records before it were sent\n" in failed.err
    assert 0 < len(broker.records(topic)) < 50_000


@pytest.fixture
def ten(cli, topic):
    """Ten records in partition 0, a second apart."""
    lines = [
        b'{"value": "%d", "partition": 0, "timestamp": %d}' % (n, 1_700_000_000_000 + n * 1000)
        for n in range(10)
    ]
    cli("produce", topic, "-i", "json", stdin=b"\n".join(lines))
    return topic


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("beginning", range(10)),
        ("7", range(7, 10)),
        ("99", []),
        ("-3", range(7, 10)),
        ("-99", range(10)),
        ("end", []),
        ("@1700000006500", range(7, 10)),
        ("2023-11-14T22:13:28Z", range(8, 10)),
        ("2099-01-01", []),
        ("1h", []),
    ],
)
def test_reading_begins_where_it_is_told_to(cli, ten, where, expected):
    assert list(map(str, expected)) == cli("consume", ten, "-e", "--from", where).out.split()


def test_reading_stops_after_as_many_records_as_were_wanted(cli, ten):
    assert ["2", "3", "4"] == cli("consume", ten, "--from", "2", "-n", 3).out.split()
    assert ["2"] == [
        line["value"] for line in cli("consume", ten, "--from", "2", "-n", 1, "-o", "json").lines
    ]


def test_one_partition_of_many(cli, ten):
    cli("produce", ten, "-p", 2, stdin=b"elsewhere\n")

    assert "elsewhere\n" == cli("consume", ten, "-e", "-p", 2).out
    assert f"topic {ten} has no partition 7: it has 3" in cli("consume", ten, "-p", 7, code=2).err


def test_a_place_that_is_none_is_a_mistake_in_the_line(cli, topic):
    assert "'yesterday' is none of" in cli("consume", topic, "--from", "yesterday", code=2).err


def test_a_topic_that_is_not_there(cli):
    assert "there is no topic 'never-was'" in cli("consume", "never-was", "-e", code=1).err


def test_an_empty_topic_ends_at_once(cli, topic):
    assert "" == cli("consume", topic, "-e").out


def test_batches_of_all_sizes_are_read(cli, broker, topic):
    """Half of a batch is before the offset that was asked for."""
    cli("produce", topic, "-p", 0, stdin=b"".join(b"%d\n" % n for n in range(1000)))
    cli("produce", topic, "-p", 0, "-z", "zstd", stdin=b"".join(b"%d\n" % n for n in range(1000, 2000)))

    assert list(map(str, range(500, 2000))) == cli("consume", topic, "-e", "--from", 500).out.split()
    assert list(map(str, range(500, 1700))) == cli("consume", topic, "--from", 500, "-n", 1200).out.split()
