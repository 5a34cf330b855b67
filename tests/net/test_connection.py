from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import ProtocolError
from kbroker.net import connection as module
from kbroker.net.buffers import READ_SIZE, SHARED_SIZE, Budget, Buffers
from kbroker.net.connection import (
    BUDGET_STEP,
    TURN_ANSWER_BYTES_MAX,
    UNANSWERED_MAX,
    UNSENT_BYTES_MAX,
    Kept,
)
from kbroker.net.slots import Slot
from kbroker.protocol.messages.api_versions import ApiVersionsResponse
from kbroker.storage.log import Region
from tests.support.fake_net import FakeSocket, Wire, frame

ONE = b"request one"
TWO = b"another request"


def echo(_: Wire, body: bytes) -> bytes:
    return b"<" + body + b">"


# -- frames in


def test_a_frame_is_handed_over_and_its_answer_sent_at_the_end_of_the_turn():
    wire = Wire(echo)

    wire.arrive(frame(ONE))

    assert [ONE] == wire.frames
    assert b"<request one>" == wire.sent


def test_several_frames_of_one_read_are_handed_over_in_order_and_answered_by_one_send():
    wire = Wire(echo)

    wire.arrive(frame(ONE) + frame(TWO) + frame(ONE))

    assert [ONE, TWO, ONE] == wire.frames
    assert b"<request one><another request><request one>" == wire.sent
    assert 1 == wire.sock.sends


class Borrower:
    """Keeps what a frame was, until the buffer is taken back."""

    def __init__(self) -> None:
        self.returned = 0

    def return_views(self) -> None:
        self.returned += 1


def borrowing(borrower, results):
    def serve(wire, body):
        borrowers = wire.turn.borrowers
        results.append(borrowers is not None)
        if borrowers is not None:
            borrowers.append(borrower)
        assert not borrower.returned
        if body == TWO:
            raise ProtocolError("a frame that is refused")
        return body

    return serve


@pytest.mark.parametrize("frames", [[ONE, ONE], [ONE, TWO, ONE]])
def test_the_buffer_of_several_frames_is_lent_until_the_last_one_was_served_or_one_fails(frames):
    borrower, lent = Borrower(), []
    wire = Wire(borrowing(borrower, lent))

    wire.arrive(b"".join(map(frame, frames)))

    assert [True, True] == lent
    assert 2 == borrower.returned
    assert wire.turn.borrowers is None


def test_the_buffer_of_one_frame_is_not_lent():
    lent = []
    wire = Wire(borrowing(Borrower(), lent))

    wire.arrive(frame(ONE))

    assert [False] == lent


@pytest.mark.parametrize("at", range(1, len(frame(ONE) + frame(TWO))))
def test_frames_may_be_split_at_every_byte(at):
    stream = frame(ONE) + frame(TWO)
    wire = Wire(echo)

    wire.arrive(stream[:at], stream[at:])

    assert [ONE, TWO] == wire.frames


def test_frames_may_come_byte_by_byte():
    wire = Wire()

    wire.arrive(*(bytes([byte]) for byte in frame(ONE) + frame(TWO)))

    assert [ONE, TWO] == wire.frames


@given(
    st.lists(st.integers(10, 400) | st.integers(SHARED_SIZE - 20, SHARED_SIZE + 20), min_size=1, max_size=6),
    st.data(),
)
def test_frames_of_any_size_in_pieces_of_any_size_arrive_whole(sizes, data):
    bodies = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    stream = b"".join(map(frame, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    wire = Wire()

    wire.arrive(*filter(None, (stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))))

    assert bodies == wire.frames
    assert [] == wire.ends


def test_a_frame_larger_than_the_shared_buffer_gets_its_own():
    body = bytes(range(256)) * (READ_SIZE // 256 + 1)
    wire = Wire()

    wire.arrive(frame(ONE) + frame(body) + frame(TWO))

    assert [ONE, body, TWO] == wire.frames


@pytest.mark.parametrize("size", [-1, -(2**31), 0, 1, 9, 101, 2**31 - 1])
@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_a_size_that_cannot_be_closes_with_one_reason(size, pieces):
    head = (size & 0xFFFFFFFF).to_bytes(4, "big") + bytes(12)
    wire = Wire(frame_size_max=100)

    step = 16 // pieces
    wire.arrive(*(head[at : at + step] for at in range(0, 16, step)))

    assert [] == wire.frames
    [error] = wire.ends
    assert isinstance(error, ProtocolError)
    assert f"a frame of {size} bytes" in str(error)
    assert wire.sock.closed


@pytest.mark.parametrize("size", [7, 8, 9])
def test_a_frame_too_small_for_a_header_that_comes_whole_is_refused_too(size):
    wire = Wire()

    wire.arrive(frame(bytes(size)))

    assert [] == wire.frames
    assert isinstance(wire.ends[0], ProtocolError)


def test_frames_before_a_bad_one_are_served():
    wire = Wire(echo)

    wire.arrive(frame(ONE) + b"\xff\xff\xff\xff" + bytes(20))

    assert [ONE] == wire.frames
    assert 1 == len(wire.ends)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS on a plaintext port"),
        (b"\x15\x03\x01\x00\x02\x02\x0a", "TLS on a plaintext port"),
        (b"GET / HTTP/1.1\r\n", "HTTP"),
    ],
)
def test_peers_that_speak_something_else_are_told_apart(head, what):
    wire = Wire()

    wire.arrive(head)

    assert what in str(wire.ends[0])


def test_the_end_of_the_peer_is_no_error_even_inside_a_frame():
    for rest in (b"", frame(ONE)[:7]):
        wire = Wire()

        wire.arrive(*filter(None, [rest]), b"")

        assert [None] == wire.ends


def test_a_reset_closes_once():
    wire = Wire()
    reset = ConnectionResetError(104, "Connection reset by peer")

    wire.arrive(reset)
    wire.connection.close(None)

    assert [reset] == wire.ends


def test_closing_while_a_frame_is_served_leaves_the_rest_unserved():
    wire = Wire(lambda wire, _: wire.connection.close(None))

    wire.arrive(frame(ONE) + frame(TWO))

    assert [ONE] == wire.frames
    assert [None] == wire.ends
    assert b"" == wire.sent


def test_a_failure_while_serving_closes_that_connection_and_nothing_else():
    """Net calls connections from the heart of the loop: nothing may escape to there."""

    def fail(*_: object) -> None:
        raise ValueError("a mistake of ours")

    wire = Wire(fail)

    wire.arrive(frame(ONE))

    assert ["a mistake of ours"] == [str(error) for error in wire.ends]


# -- answers out


def test_answers_leave_in_request_order_whoever_is_ready_first():
    slots = {body: Slot() for body in (b"a" * 10, b"b" * 10, b"c" * 10)}
    wire = Wire(lambda wire, body: slots[body])
    for slot in slots.values():
        slot.bind(wire.connection, 0, 0)
    wire.arrive(*map(frame, slots))

    slots[b"c" * 10].fill_bytes(b"third")
    wire.run()
    assert b"" == wire.sent
    slots[b"a" * 10].fill_bytes(b"first ")
    wire.run()
    assert b"first " == wire.sent
    slots[b"b" * 10].fill_bytes(b"second ")
    wire.run()

    assert b"first second third" == wire.sent


def test_an_empty_answer_is_none():
    slot = Slot()
    wire = Wire(lambda wire, body: slot if body == ONE else b"second")
    slot.bind(wire.connection, 0, 0)

    wire.arrive(frame(ONE) + frame(TWO))
    slot.fill_bytes(b"")
    wire.run()

    assert b"second" == wire.sent


def test_an_answer_may_be_replaced_by_one_to_come():
    first, second = Slot(), Slot()
    wire = Wire(lambda wire, body: first)
    first.bind(wire.connection, 0, 0)
    second.bind(wire.connection, 0, 0)

    wire.arrive(frame(ONE))
    wire.connection.replace(first, second)
    second.fill_bytes(b"answer")
    wire.run()

    assert b"answer" == wire.sent


def test_a_slot_filled_after_the_end_is_dropped():
    slot = Slot()
    wire = Wire(lambda wire, body: slot)
    slot.bind(wire.connection, 0, 0)

    wire.arrive(frame(ONE), b"")
    slot.fill_bytes(b"too late")
    wire.run()

    assert b"" == wire.sent


@pytest.mark.parametrize("value", [1 << 40, None, "x"], ids=["too large", "null", "text"])
def test_a_response_that_cannot_be_encoded_closes_its_connection_and_not_whoever_gave_it(value):
    slot = Slot()
    wire = Wire(lambda wire, body: slot)
    slot.bind(wire.connection, 4, 7)
    wire.arrive(frame(ONE))

    slot.fill(ApiVersionsResponse(throttle_time_ms=value, api_keys=[]))

    assert [False, 1] == [wire.connection.open, len(wire.ends)]
    assert wire.ends[0] is not None


@pytest.mark.parametrize("send_max", [1, 2, 7, 1000])
def test_a_slow_reader_gets_every_byte(send_max):
    parts = [b"head", memoryview(b"x" * 300), b"tail"]
    wire = Wire(
        lambda wire, body: list(parts) if body == ONE else b"plain", sock=FakeSocket(send_max=send_max)
    )

    wire.arrive(frame(ONE) + frame(TWO) + frame(ONE))

    whole = b"".join(parts)
    assert whole + b"plain" + whole == wire.sent


def test_sending_goes_on_when_the_socket_takes_bytes_again():
    wire = Wire(echo, sock=FakeSocket(room=5))

    wire.arrive(frame(ONE) + frame(TWO))
    assert b"<requ" == wire.sent
    assert wire.net.writes(wire.sock)
    wire.sock.room = 1000
    wire.run()

    assert b"<request one><another request>" == wire.sent
    assert not wire.net.writes(wire.sock)


def test_an_error_while_sending_closes():
    broken = BrokenPipeError(32, "Broken pipe")
    wire = Wire(echo)
    wire.sock.send_error = broken

    wire.arrive(frame(ONE))

    assert [broken] == wire.ends


# -- back-pressure


def test_a_peer_that_does_not_read_is_not_read_from_and_goes_on_later():
    big = bytes(1 << 20)
    wire = Wire(lambda *_: big, sock=FakeSocket(room=0))

    wire.arrive(*[frame(ONE)] * 20)
    held = len(wire.frames)
    assert UNSENT_BYTES_MAX // len(big) + 1 == held
    assert not wire.net.reads(wire.sock)

    wire.sock.room = 1 << 40
    wire.run()
    assert 20 == len(wire.frames)
    assert 20 * len(big) == len(wire.sent)


def test_one_read_of_many_requests_does_not_make_unbounded_answers():
    """256 KiB hold 13,000 small requests; their answers must not all come into memory at once."""
    big = bytes(1 << 20)
    wire = Wire(lambda *_: big, sock=FakeSocket(room=0))

    wire.arrive(frame(ONE) * 40 + frame(TWO)[:9])
    assert UNSENT_BYTES_MAX // len(big) + 1 == len(wire.frames)

    wire.sock.room = 1 << 40
    wire.arrive(frame(TWO)[9:])
    assert [ONE] * 40 + [TWO] == wire.frames
    assert 41 * len(big) == len(wire.sent)


def test_many_small_requests_with_large_answers_let_others_have_their_turn():
    answer = bytes(TURN_ANSWER_BYTES_MAX // 2)
    wire = Wire(lambda *_: answer)

    wire.sock.arrive(frame(ONE) * 20 + frame(TWO)[:9])
    wire.net.watched[wire.sock][0]()
    assert 3 == len(wire.frames)
    wire.turn.run()
    assert 6 == len(wire.frames)

    wire.arrive(frame(TWO)[9:])
    assert [ONE] * 20 + [TWO] == wire.frames
    assert 21 * len(answer) == len(wire.sent)


@pytest.mark.parametrize("later", [False, True], ids=["at once", "by a slot"])
@pytest.mark.parametrize("parts", [1, 100])
def test_answers_of_any_shape_count_for_a_peer_that_takes_none(parts, later):
    """Behind the first they would stand uncounted otherwise: 256 of them, each of megabytes."""
    answer = [b"x" * (1_000_000 // parts)] * parts
    slots: list[Slot] = []

    def serve(wire: Wire, _: bytes) -> object:
        if not later:
            return answer
        slots.append(Slot())
        slots[-1].bind(wire.connection, 0, 0)
        return slots[-1]

    wire = Wire(serve)
    wire.sock.room = 0
    for _ in range(50):
        wire.arrive(frame(ONE))
        for slot in slots:
            if slot.answer is None:
                wire.step(lambda slot=slot: slot.fill_bytes(answer if parts > 1 else answer[0]))

    assert UNSENT_BYTES_MAX // 1_000_000 + 1 == len(wire.frames)
    assert not wire.net.reads(wire.sock)

    wire.sock.room = 1 << 40
    wire.run()

    assert 50 == len(wire.frames)
    assert 0 == wire.connection._unsent
    assert wire.net.reads(wire.sock)


def test_many_unanswered_requests_stop_reading_until_some_are_answered():
    slots: list[Slot] = []

    def later(wire: Wire, _: bytes) -> Slot:
        slots.append(slot := Slot())
        slot.bind(wire.connection, 0, 0)
        return slot

    wire = Wire(later)
    wire.arrive(*[frame(ONE)] * (UNANSWERED_MAX + 10))
    assert UNANSWERED_MAX == len(wire.frames)
    assert not wire.net.reads(wire.sock)

    slots[0].fill_bytes(b"1")
    wire.run()

    assert b"1" == wire.sent
    assert UNANSWERED_MAX + 1 == len(wire.frames)


def test_many_unanswered_requests_of_one_read_stop_too():
    slots: list[Slot] = []

    def later(wire: Wire, _: bytes) -> Slot:
        slots.append(slot := Slot())
        slot.bind(wire.connection, 0, 0)
        return slot

    wire = Wire(later)
    wire.arrive(frame(ONE) * (3 * UNANSWERED_MAX))
    assert UNANSWERED_MAX == len(wire.frames)

    done = 0
    while done < len(slots):
        slots[done].fill_bytes(b".")
        done += 1
        wire.run()

    assert 3 * UNANSWERED_MAX == len(wire.frames) == len(wire.sent)


def test_pause_stops_frames_that_have_already_arrived_and_resume_brings_them():
    wire = Wire(lambda wire, body: wire.connection.pause() if body == ONE else None)

    wire.arrive(frame(ONE) + frame(TWO) + frame(b"third frame")[:8])
    assert [ONE] == wire.frames
    assert not wire.net.reads(wire.sock)

    wire.connection.resume()
    wire.run()
    assert [ONE, TWO] == wire.frames
    wire.arrive(frame(b"third frame")[8:])

    assert [ONE, TWO, b"third frame"] == wire.frames


def test_reading_goes_on_when_everybody_who_paused_has_resumed():
    """A stop pauses all; a handler that ends its own pause meanwhile must not bring new requests in."""
    wire = Wire(echo)
    wire.connection.pause()
    wire.connection.pause()
    wire.arrive(frame(ONE))

    wire.step(wire.connection.resume)
    assert ([], False) == (wire.frames, wire.net.reads(wire.sock))

    wire.step(wire.connection.resume)
    assert [ONE] == wire.frames


def test_what_is_held_is_not_served_in_the_middle_of_another_connections_frames():
    """They lie in the buffer that it would use, and have been lent to whoever appended them."""
    borrower = Borrower()
    first = Wire(lambda wire, body: wire.connection.pause() if body == ONE else None)
    first.arrive(frame(ONE) + frame(TWO))

    def serve(wire, body):
        if body == ONE:
            wire.turn.borrowers.append(borrower)
        else:
            first.connection.resume()

    second = Wire(serve, turn=first.turn)
    second.sock.arrive(frame(ONE) + frame(TWO))
    read, _ = second.net.watched[second.sock]
    read()

    assert (1, [ONE]) == (borrower.returned, first.frames)
    first.run()
    assert [ONE, TWO] == first.frames


def test_pause_in_the_middle_of_a_large_frame_loses_nothing():
    body = bytes(range(256)) * 4096
    wire = Wire()
    wire.arrive(frame(body)[:500_000])

    wire.connection.pause()
    wire.sock.arrive(frame(body)[500_000:] + frame(ONE))
    wire.run()
    assert [] == wire.frames
    wire.connection.resume()
    wire.run()

    assert [body, ONE] == wire.frames


def test_pause_while_the_socket_is_full_still_sends():
    wire = Wire(echo, sock=FakeSocket(room=3))
    wire.arrive(frame(ONE))

    wire.connection.pause()
    wire.sock.room = 100
    wire.run()

    assert b"<request one>" == wire.sent


# -- the budget


BUDGET = BUDGET_STEP
LARGE = SHARED_SIZE + 2 * BUDGET_STEP


def large(number: int) -> bytes:
    return bytes([number]) * LARGE


def pieces_of(number: int) -> list[bytes]:
    """A large frame in reads of 64 KiB."""
    data = frame(large(number))
    return [data[at : at + (1 << 16)] for at in range(0, len(data), 1 << 16)]


def test_without_budget_a_large_frame_waits_and_comes_when_there_is_some():
    buffers = Buffers(Budget(BUDGET))
    first, second, third = (Wire(buffers=buffers, frame_size_max=10 << 20) for _ in range(3))

    half = len(pieces_of(1)) // 2
    for number, wire in enumerate((first, second, third)):
        wire.arrive(*pieces_of(number)[:half])
    second.arrive(*pieces_of(1)[half:])
    third.arrive(*pieces_of(2)[half:])
    assert [large(1)] == second.frames  # the one that nothing stops
    assert [large(2)] == third.frames  # and the next one
    assert 0 == buffers.budget.left

    first.arrive(*pieces_of(0)[half:])

    assert [large(0)] == first.frames
    assert BUDGET == buffers.budget.left


def test_a_connection_reads_no_more_while_the_budget_has_nothing_for_it():
    buffers = Buffers(Budget(BUDGET))
    first, second, third = (Wire(buffers=buffers, frame_size_max=10 << 20) for _ in range(3))
    for number, wire in enumerate((first, second, third)):
        wire.arrive(*pieces_of(number)[:-1])

    waiting = [wire for wire in (first, second, third) if not wire.net.reads(wire.sock)]

    assert waiting
    assert all(wire.connection._got <= SHARED_SIZE + BUDGET_STEP for wire in waiting)
    for number, wire in enumerate((first, second, third)):
        wire.arrive(pieces_of(number)[-1])
    for wire in (first, second, third):
        wire.run()
    assert [[large(0)], [large(1)], [large(2)]] == [wire.frames for wire in (first, second, third)]
    assert BUDGET == buffers.budget.left


def test_small_frames_do_not_wait_for_a_peer_that_took_everything_and_sends_nothing():
    buffers = Buffers(Budget(BUDGET))
    hog, other = Wire(buffers=buffers, frame_size_max=10 << 20), Wire(buffers=buffers)
    hog.arrive(*pieces_of(0)[:-1])
    assert buffers.budget.left <= 0

    other.arrive(frame(ONE)[:10], frame(ONE)[10:])

    assert [ONE] == other.frames


def test_one_frame_above_the_whole_budget_goes_alone():
    wire = Wire(budget=100, frame_size_max=10 << 20)

    wire.arrive(*pieces_of(1))

    assert [large(1)] == wire.frames
    assert 100 == wire.buffers.budget.left


def test_a_connection_that_ends_gives_its_budget_back():
    buffers = Buffers(Budget(100))
    first, second, third = (Wire(buffers=buffers, frame_size_max=10 << 20) for _ in range(3))
    first.arrive(*pieces_of(1)[:-1])
    second.arrive(*pieces_of(2))
    third.arrive(*pieces_of(3))
    assert [[], []] == [second.frames, third.frames]

    second.connection.close(None)  # while it waits
    first.arrive(b"")
    third.run()

    assert [large(3)] == third.frames
    assert 100 == buffers.budget.left


def test_a_frame_that_fails_gives_its_budget_back():
    def refuse(*_: object) -> None:
        raise ProtocolError("no")

    wire = Wire(refuse, budget=BUDGET, frame_size_max=10 << 20)

    wire.arrive(*pieces_of(1))

    assert 1 == len(wire.ends)
    assert BUDGET == wire.buffers.budget.left


def test_a_frame_that_is_kept_stays_as_it_is_and_counts_until_it_is_given_back():
    kept: list[Kept | None] = []
    frames: list[memoryview] = []

    def keep(connection, view, start, end) -> None:
        connection.pause()
        frames.append(view[start:end])
        kept.append(connection.keep())

    buffers = Buffers(Budget(LARGE))
    first, second = (Wire(buffers=buffers, frame_size_max=10 << 20, on_frame=keep) for _ in range(2))
    first.arrive(*pieces_of(1))
    second.arrive(*pieces_of(2))
    taken = 2 * (LARGE + 4 - SHARED_SIZE)
    assert LARGE - taken == buffers.budget.left

    second.connection.close()  # whoever keeps it looks at it all the same
    assert LARGE - taken == buffers.budget.left
    assert [large(1), large(2)] == frames

    for each in kept:
        each.give_back()
        each.give_back()
    assert LARGE == buffers.budget.left


def test_what_is_made_of_a_kept_frame_counts_too_and_others_wait_meanwhile():
    kept: list[Kept | None] = []

    def keep(connection, view, start, end) -> None:
        connection.pause()
        kept.append(connection.keep(10))

    buffers = Buffers(Budget(2 * LARGE))
    first, second, third = (Wire(buffers=buffers, frame_size_max=10 << 20, on_frame=keep) for _ in range(3))
    taken = LARGE + 4 - SHARED_SIZE
    first.arrive(*pieces_of(1))
    assert 2 * LARGE - 10 * taken == buffers.budget.left

    second.arrive(*pieces_of(2))  # one that the limit does not stop
    third.arrive(*pieces_of(3))
    assert 2 == len(kept)

    kept[1].give_back()
    third.run()
    assert 3 == len(kept)
    for each in kept:
        each.give_back()
    assert 2 * LARGE == buffers.budget.left


def test_a_frame_in_the_buffer_of_all_cannot_be_kept():
    kept: list[Kept | None] = []
    wire = Wire(lambda wire, body: kept.append(wire.connection.keep()))

    wire.arrive(frame(ONE), frame(ONE) + frame(TWO))
    wire.arrive(frame(ONE)[:10], frame(ONE)[10:])  # but this one has one of its own

    assert [True, True, True, False] == [each is None for each in kept]


class Pending(FakeSocket):
    """As a TLS stream: what has arrived is announced by nobody once reading has stopped."""

    piece_max = 1 << 20

    def send_one(self, piece: bytes) -> int:
        return self.send(piece)

    def pending(self) -> bool:
        return bool(self.arriving)

    def wants_write(self) -> bool:
        return False


def test_what_a_tls_stream_holds_is_read_when_the_budget_has_some_again():
    buffers = Buffers(Budget(100))
    first = Wire(buffers=buffers, frame_size_max=10 << 20)
    sock = Pending()
    second = Wire(buffers=buffers, frame_size_max=10 << 20, sock=sock, stream=sock)
    first.arrive(*pieces_of(1)[:-1])
    second.arrive(*pieces_of(2))
    assert [] == second.frames

    first.arrive(pieces_of(1)[-1])
    second.turn.run()

    assert [large(2)] == second.frames


def test_what_a_half_frame_declares_takes_no_memory_until_it_comes():
    """A size costs a peer four bytes: 100 MB of it must not cost the broker 100 MB."""
    wire = Wire(frame_size_max=100 << 20)
    before = resident_kb()

    wire.arrive((100 << 20).to_bytes(4, "big") + bytes(1000))

    assert resident_kb() - before < 8 << 10


def resident_kb() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4


# -- regions of files


class FakeFile:
    """A file in memory; `cold` pages must be read by a thread first."""

    path = "/data/segment.log"

    def __init__(self, data: bytes, *, cold: bool = False, mapped: bool = True) -> None:
        self.data = data
        self.cold = cold
        self.mapped = mapped
        self.maps = 0

    def read_into(self, view: memoryview, at: int, *, wait: bool = True) -> int:
        if self.cold and not wait:
            raise BlockingIOError
        self.cold = False
        piece = self.data[at : at + len(view)]
        view[: len(piece)] = piece
        return len(piece)

    def map(self, size: int) -> memoryview | None:
        if not self.mapped or size > len(self.data):
            return None
        self.maps += 1
        return memoryview(self.data)


def region_of(file: FakeFile, at: int, size: int) -> Region:
    return Region(SimpleNamespace(truncations=0), file, at, size)


DATA = bytes(n * 7 % 251 for n in range(3 << 20))


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("send_max", [1 << 40, 50_001])
@pytest.mark.parametrize("size", [1, 5000, 40_000, (2 << 20) + 17])
def test_a_region_leaves_between_its_header_and_what_follows(size, send_max, mapped):
    file = FakeFile(DATA, mapped=mapped)
    answer = [b"header", region_of(file, 100, size), b"more", region_of(file, 7, 3), b"end"]
    wire = Wire(lambda wire, body: answer if body == ONE else b"next", sock=FakeSocket(send_max=send_max))

    wire.arrive(frame(ONE) + frame(TWO))

    assert b"header" + DATA[100 : 100 + size] + b"more" + DATA[7:10] + b"endnext" == wire.sent
    assert (size >= module.REGION_MAP_MIN and mapped) == bool(file.maps)


@pytest.mark.parametrize("size", [100, 40_000])
def test_a_region_leaves_with_what_stands_around_it_in_one_send(size):
    """What comes behind the records would be a packet of its own, and a round of the peer's loop."""
    answer = [b"header", region_of(FakeFile(DATA), 0, size), b"end"]
    wire = Wire(lambda wire, body: answer if body == ONE else b"next")

    wire.arrive(frame(ONE) + frame(TWO))

    assert b"header" + DATA[:size] + b"endnext" == wire.sent
    assert 1 == wire.sock.sends


def test_cold_pages_are_read_by_a_thread_while_others_wait_in_order():
    file = FakeFile(DATA, cold=True)
    answer = [b"header", region_of(file, 0, 5000)]
    wire = Wire(lambda wire, body: answer if body == ONE else b"next")

    wire.arrive(frame(ONE) + frame(TWO))
    assert b"header" == wire.sent
    while wire.threads.step():
        wire.run()

    assert b"header" + DATA[:5000] + b"next" == wire.sent


def test_cold_pages_are_read_once_however_many_answers_come_behind_them():
    wire = Wire(lambda wire, body: [b"header", region_of(FakeFile(DATA, cold=True), 0, 5000)])
    for _ in range(10):
        wire.arrive(frame(ONE))
    assert 1 == len(wire.threads.waiting)

    while wire.threads.step():
        wire.run()
        assert 1 >= len(wire.threads.waiting)

    assert (b"header" + DATA[:5000]) * 10 == wire.sent


def test_a_thread_that_cannot_read_closes():
    file = FakeFile(DATA, cold=True)
    wire = Wire(lambda *_: [b"header", region_of(file, 0, 5000)])
    wire.arrive(frame(ONE))

    error = OSError(5, "Input/output error")

    def broken(*_: object, **__: object) -> int:
        raise error

    file.read_into = broken
    wire.threads.step()

    assert [error] == wire.ends


def test_a_thread_that_comes_too_late_finds_the_connection_closed():
    wire = Wire(lambda *_: [b"header", region_of(FakeFile(DATA, cold=True), 0, 5000)])
    wire.arrive(frame(ONE), b"")

    wire.threads.step()
    wire.run()

    assert [None] == wire.ends


def test_a_region_of_a_log_that_was_cut_closes():
    log = SimpleNamespace(truncations=0)
    region = Region(log, FakeFile(DATA), 0, 5000)
    slot = Slot()
    wire = Wire(lambda *_: slot)
    slot.bind(wire.connection, 0, 0)
    wire.arrive(frame(ONE))

    log.truncations += 1
    slot.fill_bytes([b"header", region])
    wire.run()

    assert ["the answer's file was truncated before it was sent"] == [str(error) for error in wire.ends]
    assert b"" == wire.sent


@pytest.mark.parametrize("mapped", [True, False])
def test_a_file_that_is_shorter_than_its_region_closes(mapped):
    wire = Wire(lambda *_: [b"header", region_of(FakeFile(DATA[:1000], mapped=mapped), 0, 50_000)])

    wire.arrive(frame(ONE))

    [error] = wire.ends
    assert isinstance(error, OSError)
