"""A group on a stage: members speak by name, the clock stands until it is moved, and a log that commits at once or not.

stage = Stage()
stage.settle("a", "b")              # both are members of a Stable group; a leads
asked = stage.join("b", metadata=b"news")
asked.waits; asked.answer           # each is answered once, or the test fails
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kbroker.errors import ErrorCode
from kbroker.groups.classic import ClassicGroup, State
from kbroker.groups.events import (
    Answer,
    Beat,
    Commit,
    Effect,
    Event,
    GroupRecord,
    Join,
    Joined,
    Leave,
    Leaver,
    Now,
    Protocol,
    Sync,
    Tick,
    Write,
    Written,
)
from kbroker.groups.limits import GroupLimits

START_MS = 1_700_000_000_000


def subscription(*topics: str) -> bytes:
    """What a consumer says when it joins: version 0, its topics, no user data."""
    encoded = [topic.encode() for topic in topics]
    names = b"".join(len(topic).to_bytes(2) + topic for topic in encoded)
    return b"\x00\x00" + len(topics).to_bytes(4) + names + b"\xff\xff\xff\xff"


@dataclass
class Asked:
    """One request of one member."""

    who: str
    answer: Any = None

    @property
    def waits(self) -> bool:
        return self.answer is None

    @property
    def error(self) -> ErrorCode:
        assert self.answer is not None, f"{self.who} still waits"
        code: ErrorCode = self.answer.error
        return code


@dataclass
class Stage:
    """One group."""

    limits: GroupLimits = field(default_factory=GroupLimits)
    commits: bool = True  # what it writes down is committed at once

    def __post_init__(self) -> None:
        self.monotonic = 1000.0
        self.ids: dict[str, str] = {}  # by name, the member id heard last
        self.written: list[Write] = []  # all, the last one last
        self._given = 0
        self.group = ClassicGroup("g", limits=self.limits, new_member_id=self.new_member_id, now=self.now)

    @property
    def now(self) -> Now:
        return Now(self.monotonic, START_MS + round((self.monotonic - 1000) * 1000))

    @property
    def state(self) -> State:
        return self.group.state

    def new_member_id(self, prefix: str) -> str:
        self._given += 1
        return f"{prefix}#{self._given}"

    def restart(self, record: GroupRecord | None = None) -> None:
        """As after a restart: what was written last is all that is known."""
        self.group = ClassicGroup.restore(
            "g",
            record or self.written[-1].record,
            limits=self.limits,
            new_member_id=self.new_member_id,
            now=self.now,
        )

    # -- what members do

    def join(
        self,
        who: str,
        member_id: str | None = None,
        *,
        instance: str | None = None,
        metadata: bytes = b"",
        protocols: Iterable[str] = ("range",),
        protocol_type: str = "consumer",
        session_ms: int = 10_000,
        rebalance_ms: int = 60_000,
        version: int = 9,
    ) -> Asked:
        """Join, with the id heard last; "" to begin anew."""
        offered = tuple(Protocol(name, metadata) for name in protocols)
        asked = Asked(who)
        known = self.ids.get(who, "") if member_id is None else member_id
        event = Join(
            asked,
            known,
            instance,
            who,
            "/127.0.0.1",
            session_ms,
            rebalance_ms,
            protocol_type,
            offered,
            version >= 4,
            version >= 9,
        )
        return self.ask(event)

    def sync(
        self,
        who: str,
        assignments: dict[str, bytes] | None = None,
        *,
        generation: int | None = None,
        instance: str | None = None,
        protocol_type: str | None = None,
        protocol_name: str | None = None,
    ) -> Asked:
        """Sync; assignments are by name."""
        given = tuple((self.ids.get(name, name), data) for name, data in (assignments or {}).items())
        number = self.group.generation if generation is None else generation
        member_id = self.ids.get(who, who)
        return self.ask(Sync(Asked(who), number, member_id, instance, protocol_type, protocol_name, given))

    def beat(self, who: str, *, generation: int | None = None, instance: str | None = None) -> ErrorCode:
        number = self.group.generation if generation is None else generation
        return self.ask(Beat(Asked(who), number, self.ids.get(who, who), instance)).error

    def leave(self, *who: str) -> Asked:
        return self.ask(Leave(Asked(who[0]), tuple(Leaver(self.ids.get(name, name), None) for name in who)))

    def commit(self, who: str, *, generation: int | None = None, instance: str | None = None) -> ErrorCode:
        number = self.group.generation if generation is None else generation
        commit = Commit(None, number, self.ids.get(who, who), instance, ())
        return self.group.check_commit(commit, self.now)

    # -- what happens to it

    def ask(self, event: Any) -> Asked:
        self.happen(event)
        asked: Asked = event.to
        return asked

    def happen(self, event: Event) -> None:
        self.perform(self.group.handle(event, self.now))

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Write):
                self.written.append(effect)
                if self.commits:
                    self.happen(Written(effect.token, ErrorCode.NONE))
            else:
                self.answered(effect.to, effect.answer)

    def answered(self, asked: Asked, answer: Answer) -> None:
        assert asked.answer is None, f"{asked.who} was answered twice"
        asked.answer = answer
        if isinstance(answer, Joined) and answer.member_id:
            self.ids[asked.who] = answer.member_id

    def committed(self, error: ErrorCode = ErrorCode.NONE) -> None:
        """What became of the last write."""
        self.happen(Written(self.written[-1].token, error))

    def pass_time(self, seconds: float, *, beating: Iterable[str] = ()) -> None:
        """Time goes by; alarms ring when they are due, and these members send heartbeats each second."""
        end = self.monotonic + seconds
        beating = list(beating)
        while self.monotonic < end:
            second = min(self.monotonic + 1.0, end)
            while self.group.alarm_at <= second:
                self.monotonic = max(self.monotonic, self.group.alarm_at)
                self.happen(Tick())
            self.monotonic = second
            for who in beating:
                self.beat(who)

    # -- scenes

    def settle(self, *names: str, assign: Callable[[str], bytes] = str.encode, **join: Any) -> None:
        """All of them are members and have their assignments; the first one leads."""
        for name in names:
            self.join(name, "", version=3, **join)
        self.pass_time(6)
        self.sync_all(*names, assign=assign)
        assert State.STABLE is self.group.state

    def settle_static(self, *names: str, **join: Any) -> None:
        """As `settle`; a's instance id is A."""
        for name in names:
            self.join(name, "", instance=name.upper(), **join)
        self.pass_time(6)
        self.sync_all(*names)
        assert State.STABLE is self.group.state

    def sync_all(self, *names: str, assign: Callable[[str], bytes] = str.encode) -> list[Asked]:
        """All sync, the first one, who leads, last."""
        followers = [self.sync(name) for name in names[1:]]
        return [self.sync(names[0], {name: assign(name) for name in names}), *followers]

    def members(self) -> list[str]:
        """Names (client ids) of the members."""
        return sorted(member.client_id for member in self.group.described().members)
