"""Markers that do not come back: fewer and fewer of them, until somebody reads the saga's queue again."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from messages.catalog.ordering import StockReserved
from sagas import decide
from sagas.outcome import GiveUp, TimerFired
from sagas.patch import patch, rebuild
from tests.sagas.test_overdue import NOW, PLACE_ORDER, arrived, started

if TYPE_CHECKING:
    from sagas.instance import Instance

TIMER = "reserve/do"
HOUR = timedelta(hours=1)


class Unheard:
    """An order whose saga queue nobody reads, from the first marker of its deadline or of its first step on."""

    def __init__(self, timer: str) -> None:
        self.timer = timer
        self.instance = started()
        self.patches = [patch(None, self.instance)]
        self.sent: list[timedelta] = []
        self.ids: list[str] = []

    def until(self, end: timedelta) -> None:
        """Fire the timer whenever it is due, for so long; the broker has every message at once."""
        while (due := self.instance.timers[self.timer].due_at) <= NOW + end:
            fence = self.instance.timers[self.timer].fence
            decision = decide.decide(PLACE_ORDER, self.instance, TimerFired(name=self.timer, fence=fence), due)
            self.take(decision.instance)
            for send in decision.sends:
                if send.marker:
                    self.sent.append(due - NOW)
                    self.ids.append(send.message_id)

    def take(self, instance: Instance) -> None:
        self.patches.append(patch(self.instance, instance))
        self.instance = instance


def gaps(moments: list[timedelta]) -> list[float]:
    return [(after - before).total_seconds() for before, after in pairwise(moments)]


def test_from_the_third_on_each_is_waited_for_as_long_as_all_before_it_but_an_hour_at_most() -> None:
    lost = Unheard(TIMER)
    lost.until(timedelta(days=1))
    first, *rest = gaps(lost.sent)
    assert rest[0] == first
    assert all(gap in (min(2 * before, 3600.0), 3600.0) for before, gap in pairwise(rest))
    assert rest[-1] == 3600.0
    assert len(lost.sent) < 35
    asked = lost.instance.timers[TIMER].asked_at
    assert asked == NOW + lost.sent[0]
    assert rebuild(lost.patches) == lost.instance


def test_the_deadline_asks_less_and_less_too() -> None:
    lost = Unheard("deadline")
    begin = lost.instance.deadline_at - NOW
    lost.until(begin + timedelta(minutes=16))
    assert [moment - begin for moment in lost.sent] == [
        timedelta(seconds=after) for after in (0, 30, 60, 120, 240, 480, 960)
    ]


def test_a_reply_or_the_marker_itself_is_a_sign_of_life() -> None:
    lost = Unheard(TIMER)
    lost.until(HOUR)
    reply = arrived(StockReserved(order_id="o-1", reservation_id="r-1"), "reserve")
    answered = decide.decide(PLACE_ORDER, lost.instance, reply, NOW + HOUR).instance
    assert not [timer for timer in answered.timers.values() if timer.asked_at]
    entry = decide.decide(
        PLACE_ORDER, lost.instance, GiveUp(message_id=lost.ids[0], timer=TIMER, entry="1/1/3"), NOW + HOUR
    )
    assert entry.instance.phase == "compensating"
    assert not [timer for timer in entry.instance.timers.values() if timer.asked_at]


def test_a_timer_that_stood_still_asks_anew() -> None:
    lost = Unheard(TIMER)
    lost.until(HOUR)
    late = lost.instance.timers[TIMER].due_at + HOUR
    fired = TimerFired(name=TIMER, fence=lost.instance.timers[TIMER].fence)
    assert decide.decide(PLACE_ORDER, lost.instance, fired, late).instance.timers[TIMER].asked_at == late
