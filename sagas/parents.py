"""What a saga owes to whoever started it straight at its queue: word of its end, and to turn back when it is told to.

That is its parent: a saga one of whose steps it is, or any service that starts it as a saga does. What it announces of
its end goes to the parent, too, as the answer to the start.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

from messages.value import value
from sagas.backward import turn_back
from sagas.instance import Phase, message_id
from sagas.names import PARENT
from sagas.outcome import Send
from sagas.scopes import pivot_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from messages import CancelSaga
    from sagas.outcome import Arrived
    from sagas.turn import Turn


@value
class Parent:
    """Whoever started a saga: where it is told of the end, and by which ids it knows what it is about.

    `start` names the start, whatever the number of attempts at it. `answers` are what it was told: the message id, the
    name and the version of each.
    """

    reply_to: str
    correlation_id: str | None
    start: str
    message_id: str
    answers: tuple[tuple[str, str, int], ...] = ()

    @property
    def saga_id(self) -> UUID | None:
        """The instance that it is, where it is one."""
        try:
            return UUID(self.correlation_id or "")
        except ValueError:
            return None


def parent_of(choices: Mapping[str, str]) -> Parent | None:
    """Who is told of the end of an instance; None: nobody."""
    if PARENT not in choices:
        return None
    reply_to, correlation_id, start, first, *answers = json.loads(choices[PARENT])
    told = tuple((message, name, version) for message, name, version in answers)
    return Parent(reply_to=reply_to, correlation_id=correlation_id, start=start, message_id=first, answers=told)


def packed(parent: Parent) -> str:
    """What an instance keeps of its parent."""
    return json.dumps((parent.reply_to, parent.correlation_id, parent.start, parent.message_id, *parent.answers))


def answer_parent(turn: Turn, announced: Send) -> None:
    """Tell the parent, too, what was announced of the end."""
    parent = parent_of(turn.choices)
    if parent is None:
        return
    answer = Send(
        message_id=message_id(turn.before.saga_id, PARENT, 1, turn.seq + 1, "answer"),
        name=announced.name,
        schema_version=announced.schema_version,
        path=PARENT,
        body=announced.body,
        causation_id=parent.message_id,
        answers=parent,
    )
    told = (answer.message_id, answer.name, answer.schema_version)
    turn.choices[PARENT] = packed(replace(parent, answers=(*parent.answers, told)))
    turn.sends.append(answer)
    turn.record("parent_answered", message=answer, body=answer.body, causation_id=answer.causation_id)


def cancel_by_parent(turn: Turn, arrived: Arrived, cancel: CancelSaga) -> str | None:
    """Turn back because the parent does. Returns why that is ignored, or None; one that has ended answers again."""
    parent = parent_of(turn.choices)
    if parent is None or cancel.start not in (parent.start, parent.message_id):
        return "started_by_another"
    if turn.phase is Phase.COMPENSATING:
        return "turned_back"
    if turn.phase.ended:
        return "ended"
    if pivot_of(turn) is not None:
        return "behind_the_pivot"
    turn.attention.pop("method_raised", None)
    turn.record("cancelled", message=arrived, body=arrived.body, by="parent")
    turn_back(turn, "cancelled")
    return None


def answer_again(turn: Turn) -> None:
    """Send what the parent was told of the end once more, the same bytes under the same ids."""
    parent = parent_of(turn.choices)
    for message, name, version in () if parent is None else parent.answers:
        again = Send(message_id=message, name=name, schema_version=version, path=PARENT, body=None, answers=parent)
        turn.sends.append(again)
        turn.record("parent_answered", message=again, again=True)
