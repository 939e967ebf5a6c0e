"""The two messages of the engine between a saga and its child: the start that came to nothing, and the way back.

They are part of the wire contract: whoever starts a saga straight at its queue is answered by the one, and may send the
other.
"""

from __future__ import annotations

from messages.message import Event


class NotStarted(Event, name="antiphon.NotStarted"):
    """Answers a start: no saga came of it. `reason` is `key_taken`, or the reason of the dead letter that it became."""

    saga_type: str
    key: str | None = None
    reason: str


class CancelSaga(Event, name="antiphon.CancelSaga"):
    """Whoever started the saga of that key wants it undone; where it has ended it answers once more.

    `start` is the idempotency-key of the start, or its message id where it had none: a saga that another start has made
    is none of its business.
    """

    key: str
    start: str
