"""How far a step is that works off a list, item by item: kept at its path in the choices of the instance.

The step itself, the whole, is no step of the instance; its items are, each at a path of its own (`pay[17]`), but only
those that are under way. Whatever is done rests beside the instance, so that its row stays small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.value import value

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sagas.turn import Turn

RUNNING, SUCCEEDED, FAILED, STOPPED = "running", "succeeded", "failed", "stopped"


@value
class Tally:
    """`following` is the next item to begin; of those that rest `done` were done, `failed` were not, `owed` may have to
    be undone. Those of these that are still beside the instance ended before `cursor`. `began` is a history number.
    """

    state: str
    began: int
    following: int = 0
    done: int = 0
    failed: int = 0
    owed: int = 0
    cursor: int = 0


def tally(turn: Turn, path: str) -> Tally:
    """That of a whole."""
    return told(turn.choices[path])


def told(choice: str) -> Tally:
    """What is kept of a whole."""
    state, *numbers = choice.split()
    began, following, done, failed, owed, cursor = map(int, numbers)
    return Tally(state=state, began=began, following=following, done=done, failed=failed, owed=owed, cursor=cursor)


def keep(turn: Turn, path: str, each: Tally) -> None:
    """Note how far a whole is."""
    numbers = each.began, each.following, each.done, each.failed, each.owed, each.cursor
    turn.choices[path] = " ".join((each.state, *map(str, numbers)))


def wholes(turn: Turn) -> Iterator[str]:
    """The wholes that the flow has come to."""
    yield from wholes_in(turn.choices, turn.definition.eaches)


def wholes_in(choices: Mapping[str, str], eaches: Collection[str]) -> Iterator[str]:
    """The same of an instance's choices, and of the steps that work off lists."""
    if eaches:
        yield from (path for path in choices if "/" not in path and path.partition("[")[0] in eaches)


def whole_of(turn: Turn, path: str) -> str:
    """The whole that an item belongs to; of anything else the path itself."""
    if path.partition("[")[0] not in turn.definition.eaches:
        return path
    whole = path.rpartition("[")[0]
    return whole if whole in turn.choices else path


def items_at_hand(turn: Turn, whole: str) -> list[str]:
    """The items of a whole that are under way, being undone among them."""
    return [path for path in turn.steps if path.rpartition("[")[0] == whole]


def index_of(path: str) -> int:
    """The number of an item."""
    return int(path.rpartition("[")[2].rstrip("]"))
