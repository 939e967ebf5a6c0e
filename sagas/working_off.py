"""A step for each item of a list: so many at once, the next when one is done, and some may fail.

When it is to be undone, the items that rest are fetched back, the one that ended last first, as many at once: whatever
is still beside the instance ended before all that are here.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING

from sagas.definition import Purpose
from sagas.doubts import doubted
from sagas.instance import CallProgress, CallStatus
from sagas.items import NeedsItems, Rested, Want
from sagas.tally import FAILED, RUNNING, STOPPED, SUCCEEDED, Tally, index_of, items_at_hand, keep, tally, wholes
from sagas.waits import reply_wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sagas.definition import EachDefinition
    from sagas.instance import StepProgress
    from sagas.turn import Turn

_DONE = (CallStatus.SUCCEEDED, CallStatus.SKIPPED)


def begin(turn: Turn, path: str) -> None:
    """The flow has come to a step that works off a list."""
    began = turn.record("each_began", path, items=turn.items_in(_each(turn, path).list_field))
    keep(turn, path, Tally(state=RUNNING, began=began))
    tend(turn, path)


def tend(turn: Turn, path: str) -> None:
    """Put aside what is done, begin what is next, and see whether that was all.

    Raises:
        MethodRaised: the command of the next item cannot be built.
    """
    if tally(turn, path).state != RUNNING:
        return
    for item in items_at_hand(turn, path):
        _put_aside(turn, path, item)
    each, total = _each(turn, path), turn.items_in(_each(turn, path).list_field)
    under_way = len(items_at_hand(turn, path))
    while tally(turn, path).following < total and under_way < each.at_once and not turn.halted:
        under_way += _begin_next(turn, path)
    now = tally(turn, path)
    if now.following == total and not under_way:
        keep(turn, path, replace(now, state=SUCCEEDED))
        turn.record("step_completed", path, done=now.done, failed=now.failed or None)


def next_items(turn: Turn) -> Iterator[str]:
    """The items that are next, of wholes that go on."""
    for path in wholes(turn):
        now = tally(turn, path)
        if now.state == RUNNING and now.following < turn.items_in(_each(turn, path).list_field):
            yield f"{path}[{now.following}]"


def tolerated(turn: Turn, path: str, reason: str) -> bool:
    """Whether an item may fail although its whole goes on; if not, the whole has failed."""
    now, each = tally(turn, path), _each(turn, path)
    failed = now.failed + sum(_is_failed(turn, item) for item in items_at_hand(turn, path))
    if now.state != RUNNING or failed <= each.most_failures(turn.items_in(each.list_field)):
        return True
    keep(turn, path, replace(now, state=FAILED))
    turn.record("step_failed", path, reason=reason, failed=failed)
    return False


def stop(turn: Turn, path: str) -> None:
    """Begin no more of it: it is given up."""
    if (now := tally(turn, path)).state == RUNNING:
        keep(turn, path, replace(now, state=STOPPED))


def recall(turn: Turn, path: str, *, resolved: list[str]) -> None:
    """Put aside the items whose undo is done with, and fetch back those that are next to be undone."""
    for item in resolved:
        rest(turn, path, item, owed=False)
    room = _each(turn, path).at_once - len(items_at_hand(turn, path))
    while (now := tally(turn, path)).owed and room > 0:
        index, step = _last_owed(turn, path, now)
        room -= 1
        turn.steps[f"{path}[{index}]"] = step
        keep(turn, path, replace(now, owed=now.owed - 1, cursor=step.do.ended))


def rest(turn: Turn, path: str, item: str, *, owed: bool) -> None:
    """Put an item aside."""
    step = turn.steps.pop(item)
    turn.rested.append(Rested(path=path, index=index_of(item), step=step, owed=owed))
    if owed:
        beside = turn.owed.setdefault(path, [])
        beside.append((index_of(item), step))
        beside.sort(key=lambda each: -each[1].do.ended)
        now = tally(turn, path)
        keep(turn, path, replace(now, owed=now.owed + 1, cursor=max(now.cursor, step.do.ended + 1)))


def last_owed(turn: Turn, path: str) -> int:
    """Before when all was begun that rests and is still to be undone."""
    now = tally(turn, path)
    return now.cursor if now.owed else 0


def _each(turn: Turn, path: str) -> EachDefinition:
    each = turn.step(path).each
    if each is None:
        raise LookupError(f"{path} works off no list")
    return each


def _begin_next(turn: Turn, path: str) -> bool:
    """Whether the next item is under way then."""
    now, call = tally(turn, path), turn.step(path).do
    item = f"{path}[{now.following}]"
    turn.send(item, call, CallProgress(status=CallStatus.PENDING), reply_wait(call, 1))
    keep(turn, path, replace(now, following=now.following + 1))
    if not call.replies:
        turn.close(item, Purpose.DO, CallStatus.SUCCEEDED, turn.record("step_completed", item))
        _put_aside(turn, path, item)
    return item in turn.steps


def _put_aside(turn: Turn, path: str, item: str) -> None:
    """An item that was done, or failed: one in doubt only when what it may have done is undone."""
    step, undo = turn.steps[item], turn.step(path).undo
    if step.do.status.open:
        return
    if step.do.status in _DONE:
        owed = undo is not None and step.undo is None and step.do.spent > 0
        rest(turn, path, item, owed=owed)
        now = tally(turn, path)
        begun = max(now.following, index_of(item) + 1)  # an operator may go on without the one that is next
        keep(turn, path, replace(now, done=now.done + 1, following=begun))
    elif step.do.status is not CallStatus.IN_DOUBT or undo is None or _is_undone(turn, item):
        rest(turn, path, item, owed=False)
        now = tally(turn, path)
        keep(turn, path, replace(now, failed=now.failed + 1))


def _is_undone(turn: Turn, item: str) -> bool:
    undo = turn.steps[item].undo
    return undo is not None and undo.status in _DONE


def _is_failed(turn: Turn, item: str) -> bool:
    do = turn.steps[item].do
    return item in doubted(turn) if do.status.open else do.status not in _DONE


def _last_owed(turn: Turn, path: str, now: Tally) -> tuple[int, StepProgress]:
    """The item that ended last of those that rest and are still to be undone."""
    owed = turn.owed.get(path, ())
    place = bisect_right(owed, -now.cursor, key=lambda each: -each[1].do.ended)
    if place < len(owed):
        return owed[place]
    raise NeedsItems(Want(list_field=_each(turn, path).list_field, path=path, before=now.cursor))
