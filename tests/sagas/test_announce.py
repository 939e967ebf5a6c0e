"""Announcements: what a saga tells of itself, once for each occurrence, whatever stands in the way."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from messages import Event
from messages.errors import OperationRefused
from sagas import Saga, announce, decision, definition_of, parallel, repeat, signal, step
from sagas.decide import decide, first_state
from sagas.decide import start as begin
from sagas.difference import difference
from sagas.instance import Phase, saga_id
from sagas.outcome import Arrived, Disposition
from testkit.harness import Harness
from tests.sagas.test_branches import Booked, Booking, Do, Failed, answered, sent, undone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sagas.outcome import HistoryEntry


class Moved(Event, name="announce.Moved"):
    key: str
    to: str


class Secured(Event, name="announce.Secured"):
    key: str
    note: str


class Freed(Event, name="announce.Freed"):
    key: str


class Noted(Event, name="announce.Noted"):
    key: str
    note: str


BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def sound() -> Iterator[None]:
    BROKEN.clear()
    yield
    BROKEN.clear()


def perhaps_raise(method: str) -> None:
    if method in BROKEN:
        raise ValueError(f"{method} is broken")


class Telling(Booking, key="key", version=1):
    """a, b, c, d; and whoever wants to know is told."""

    note: str = ""

    @signal
    def noted(self, event: Noted) -> None:
        self.note = event.note

    @announce("started", "turned_back")
    def moved(self) -> Moved:
        perhaps_raise("moved")
        return Moved(key=self.key, to="and fro")

    @announce("completed", "compensated")
    def ended(self) -> Moved:
        perhaps_raise("ended")
        return Moved(key=self.key, to="an end")

    @Booking.a.announce
    def secured(self) -> Secured:
        perhaps_raise("secured")
        return Secured(key=self.key, note=self.note)

    @Booking.undo_a.announce
    def freed(self) -> Freed:
        perhaps_raise("freed")
        return Freed(key=self.key)


MOVED, ENDED, FREED = Moved(key="k", to="and fro"), Moved(key="k", to="an end"), Freed(key="k")
SECURED = Secured(key="k", note="")


def told(saga: Harness) -> list[HistoryEntry]:
    return [entry for entry in saga.history if entry.kind == "announced"]


def begun(saga: type[Saga] = Telling) -> Harness:
    return Harness(saga).given(Booked(key="k"))


def test_the_birth_the_steps_and_the_end_are_announced_apart_from_what_is_sent() -> None:
    saga = begun()
    assert (saga.announced, sent(saga)) == ([MOVED], ["do a"])
    answered(saga, "a")
    assert (saga.announced, sent(saga)) == ([SECURED], ["do b"])
    assert answered(saga, "b").announced == []
    assert answered(answered(saga, "c"), "d").announced == [ENDED]
    assert [entry.detail["announcement"] for entry in told(saga)] == ["moved", "secured", "ended"]
    assert saga.kinds[-2:] == ["completed", "announced"]


def test_the_way_back_is_announced() -> None:
    saga = answered(answered(begun(), "a"), "b", Failed)
    assert (saga.announced, sent(saga)) == ([MOVED], ["undo a"])
    assert undone(saga, "a").announced == [FREED, ENDED]
    assert [entry.step for entry in told(saga)] == [None, "a", None, "a", None]


def test_an_announcement_is_built_from_the_state_as_it_is_then() -> None:
    assert answered(begun().hears(Noted(key="k", note="x")), "a").announced == [Secured(key="k", note="x")]


def test_an_announcement_names_what_caused_it_and_no_two_have_one_id() -> None:
    saga = answered(answered(begun(), "a"), "b", Failed)
    caused = {entry.message_id for entry in saga.history if entry.kind in ("started", "reply_received")}
    assert {entry.detail["causation_id"] for entry in told(saga)} <= caused
    undone(saga, "a")
    assert len({entry.message_id for entry in told(saga)}) == len(told(saga)) == 5
    assert all(entry.body for entry in told(saga))


def test_the_same_decision_computed_again_gives_the_same_ids() -> None:
    definition = definition_of(Telling)
    arrived = Arrived(message_id="m", name="branches.Booked", body=b"{}", event=Booked(key="k"))
    state = first_state(definition, arrived)
    identity = saga_id("x", "Telling", "k")
    now = Harness(Telling).now
    one, other = (begin(definition, arrived, state=state, saga_id=identity, key="k", n=1, now=now) for _ in range(2))
    assert one == other
    assert [send.event for send in one.sends] == [True, False]


def test_what_is_announced_of_a_saga_shares_one_place_in_the_outbox_so_that_it_keeps_its_order() -> None:
    definition = definition_of(Telling)
    saga = begun()
    asked = saga.log[-1]
    reply = Failed(what="a")
    failed = Arrived(message_id="m", name="branches.Failed", body=b"{}", event=reply, causation_id=asked.message_id)
    decision = decide(definition, saga.instance, failed, saga.now)
    assert [send.name for send in decision.sends] == ["announce.Moved", "announce.Moved"]
    assert {send.path for send in decision.sends} == {"/announcements"}


def test_one_that_cannot_be_built_at_the_start_parks_the_newborn_and_comes_once_it_is_mended() -> None:
    BROKEN.add("moved")
    saga = begun()
    assert (saga.status, saga.announced, sent(saga)) == ("parked", [], [])
    assert "Telling.moved: ValueError: moved is broken" in saga.attention["method_raised"]
    BROKEN.clear()
    saga.operator("retry")
    assert (saga.status, saga.announced, sent(saga)) == ("running", [MOVED], ["do a"])


def test_a_reply_counts_although_what_it_brings_about_cannot_be_announced() -> None:
    BROKEN.add("secured")
    saga = answered(begun(), "a")
    assert (saga.disposition, saga.status, sent(saga)) == (Disposition.APPLIED, "parked", [])
    assert saga.kinds[-2:] == ["step_completed", "parked"]
    saga.operator("retry")  # in vain
    assert (saga.status, saga.announced) == ("parked", [])
    BROKEN.clear()
    saga.operator("retry")
    assert (saga.status, saga.announced, sent(saga)) == ("running", [SECURED], ["do b"])
    reply = next(entry for entry in saga.history if entry.kind == "reply_received")
    assert told(saga)[-1].detail["causation_id"] == reply.message_id
    assert saga.operator("retry", "b").announced == []


def test_an_end_is_an_end_although_it_cannot_be_announced() -> None:
    BROKEN.add("ended")
    saga = answered(answered(answered(answered(begun(), "a"), "b"), "c"), "d")
    assert (saga.instance.phase, saga.status, saga.announced) == (Phase.COMPLETED, "parked", [])
    BROKEN.clear()
    saga.operator("retry")
    assert (saga.instance.phase, saga.status, saga.announced) == (Phase.COMPLETED, "completed", [ENDED])
    assert saga.instance.choices == {}


def test_what_happens_behind_one_that_cannot_be_built_is_announced_behind_it() -> None:
    BROKEN.add("secured")
    saga = answered(begun(), "a").operator("cancel")
    assert (saga.status, saga.announced, sent(saga)) == ("parked", [], [])
    BROKEN.clear()
    saga.operator("retry")
    assert (saga.announced, sent(saga)) == ([SECURED, MOVED], ["undo a"])


def test_a_paused_saga_announces_what_happened_when_it_goes_on() -> None:
    saga = answered(begun(), "a").operator("pause").operator("cancel")
    assert (saga.announced, sent(saga)) == ([], [])
    saga.operator("resume")
    assert saga.announced == [MOVED]


def test_an_operator_may_go_on_without_an_announcement() -> None:
    BROKEN.add("ended")
    saga = answered(answered(answered(answered(begun(), "a"), "b"), "c"), "d")
    with pytest.raises(OperationRefused, match="step 'x' cannot be skipped now; possible: ended"):
        saga.operator("skip", "x")
    saga.operator("skip")
    assert (saga.status, saga.announced, saga.instance.skipped) == ("completed", [], 1)
    assert saga.history[-1].kind == "announcement_skipped"


def test_no_command_follows_an_announcement_that_cannot_be_built() -> None:
    class Hasty(Booking, key="key", version=1):
        @step(reply=False)
        def e(self) -> Do:
            return Do(what="e")

        @e.announce
        def went(self) -> Freed:
            perhaps_raise("went")
            return FREED

        flow = parallel(e, Booking.a) >> Booking.b >> Booking.c >> Booking.d

    BROKEN.add("went")
    saga = begun(Hasty)
    assert (sent(saga), saga.status) == (["do e"], "parked")
    BROKEN.clear()
    saga.operator("retry")
    assert (sent(saga), saga.announced) == (["do a"], [FREED])


def test_each_time_of_a_loop_is_announced_with_its_path() -> None:
    class Again(Booking, key="key", version=1):
        @decision
        def enough(self) -> bool:
            return self.size > 0 and len(self.note) > 2

        note: str = ""

        @signal
        def noted(self, event: Noted) -> None:
            self.note = event.note

        @Booking.a.announce
        def secured(self) -> Secured:
            return Secured(key=self.key, note=self.note)

        flow = repeat(Booking.a, until=enough, most=3) >> Booking.b >> Booking.c >> Booking.d

    saga = begun(Again)
    answered(saga, "a[0]")
    answered(saga.hears(Noted(key="k", note="now")), "a[1]")
    assert [(entry.step, entry.body) for entry in told(saga)] == [
        ("a[0]", b'{"key":"k","note":""}'),
        ("a[1]", b'{"key":"k","note":"now"}'),
    ]


def test_a_step_that_fell_silent_is_not_announced_but_what_takes_it_back_is() -> None:
    saga = begun().advance(timedelta(minutes=10))
    assert saga.instance.end_reason == "timed_out"
    assert saga.announced == [MOVED]
    assert undone(saga, "a").announced == [FREED, ENDED]


def test_announcements_are_methods_and_part_of_the_shape_to_which_more_may_be_added() -> None:
    assert Telling(key="k", note="x").secured() == Secured(key="k", note="x")
    document = definition_of(Telling).document
    assert document["shape"]["announcements"] == {
        "started/moved": {"event": "announce.Moved", "version": 1},
        "turned_back/moved": {"event": "announce.Moved", "version": 1},
        "completed/ended": {"event": "announce.Moved", "version": 1},
        "compensated/ended": {"event": "announce.Moved", "version": 1},
        "a/secured": {"event": "announce.Secured", "version": 1},
        "undo_a/freed": {"event": "announce.Freed", "version": 1},
    }
    fewer = {**document, "shape": {**document["shape"], "announcements": {}}}
    assert not difference(fewer, document).refused
    gone = difference(document, fewer)
    assert gone.refused
    assert "shape: announcement completed/ended is gone" in str(gone)


def test_a_saga_that_announces_nothing_says_nothing_of_it() -> None:
    class Silent(Booking, key="key", version=1):
        pass

    assert "announcements" not in definition_of(Silent).document["shape"]
