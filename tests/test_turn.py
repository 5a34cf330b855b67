"""The end of a turn: what is done in which order, and who fails alone."""

from __future__ import annotations

from collections.abc import Callable

from kbroker.turn import Turn


class Item:
    """Whatever may be asked for: says that it was its time, and does what it was made for."""

    def __init__(self, said: list[str], name: str, does: Callable[[], None] = lambda: None) -> None:
        self._said = said
        self._name = name
        self._does = does

    def _now(self) -> None:
        self._said.append(self._name)
        self._does()

    write_out = begin = settle = flush = _now

    def failed(self, error: BaseException) -> None:
        self._said.append(f"{self._name} failed: {error}")


def test_what_is_asked_for_is_done_in_the_order_write_sync_settle_send():
    turn, said = Turn(), []
    turn.send(Item(said, "send"))
    turn.settle(Item(said, "settle"))
    turn.sync(Item(said, "sync"))
    turn.write(Item(said, "write"))

    turn.run()

    assert ["write", "sync", "settle", "send"] == said
    assert not turn.busy


def test_what_settling_asks_for_is_done_in_the_same_turn_before_anything_is_sent():
    turn, said = Turn(), []
    turn.send(Item(said, "send"))
    turn.settle(Item(said, "settle", lambda: turn.write(Item(said, "write"))))

    turn.run()

    assert ["settle", "write", "send"] == said


def test_readers_that_a_write_woke_are_sent_to_before_the_producers_that_waited_for_it():
    turn, said = Turn(), []
    fetch = Item(said, "look", lambda: turn.send(Item(said, "reader")))

    def moved() -> None:
        turn.send(Item(said, "producer"))
        turn.settle(fetch)

    turn.send(Item(said, "at once"))
    turn.settle(Item(said, "partition", moved))
    turn.settle(Item(said, "other partition", lambda: turn.send(Item(said, "other producer"))))

    turn.run()

    assert ["partition", "other partition", "look", "reader", "at once", "producer", "other producer"] == said


def test_an_item_that_fails_fails_alone():
    turn, said = Turn(), []

    def fail() -> None:
        raise RuntimeError("broken")

    for ask in (turn.write, turn.sync, turn.settle, turn.send):
        ask(Item(said, "bad", fail))
        ask(Item(said, "good"))

    turn.run()

    assert ["bad", "bad failed: broken", "good"] * 4 == said
