"""What an instance has still to announce: nothing, but where it stands still, or an announcement cannot be built.

An announcement follows the history row that it is of. Where nothing may be sent it is kept, with the message that
brought it about, and comes in its turn when the instance goes on: once, and from the state as it is then. What has
happened has happened; it waits for no announcement.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from messages.errors import MethodRaised
from messages.value import value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagas.turn import Turn

UNANNOUNCED = "/unannounced"
"""Where an instance keeps them; no place of a flow is called so."""


@value
class Unannounced:
    """An announcement that is due: its method, the path of its step if it is of one, and the message that caused it."""

    name: str
    path: str | None
    causation_id: str | None


def note_announcements(turn: Turn, kind: str, path: str | None) -> None:
    """Announce what follows a history row of that kind."""
    due = [
        Unannounced(name=name, path=path if each.of else None, causation_id=turn.causation_id)
        for name, each in turn.definition.announcements.items()
        if each.follows(kind, path)
    ]
    if due:
        _keep(turn, [*unannounced(turn), *due])
        announce_due(turn)


def announce_due(turn: Turn) -> None:
    """Announce whatever is due, in order. One that cannot be built parks the instance, and those behind it wait."""
    due = list(unannounced(turn))
    try:
        while due and not turn.halted:
            turn.announce(due[0].name, due[0].path, due[0].causation_id)
            del due[0]
    except MethodRaised as error:
        turn.park("method_raised", str(error))
    _keep(turn, due)


def unannounced(turn: Turn) -> Sequence[Unannounced]:
    """What is due and was not announced, the first first."""
    kept = json.loads(turn.choices.get(UNANNOUNCED, "[]"))
    return [Unannounced(name=name, path=path, causation_id=cause) for name, path, cause in kept]


def leave_unannounced(turn: Turn, name: str) -> None:
    """Go on without the first one of that name."""
    due = list(unannounced(turn))
    gone = next(each for each in due if each.name == name)
    due.remove(gone)
    _keep(turn, due)
    turn.record("announcement_skipped", gone.path, announcement=name)


def _keep(turn: Turn, due: Sequence[Unannounced]) -> None:
    if due:
        turn.choices[UNANNOUNCED] = json.dumps([(each.name, each.path, each.causation_id) for each in due])
    else:
        turn.choices.pop(UNANNOUNCED, None)
