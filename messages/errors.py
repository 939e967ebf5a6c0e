"""The one tree of errors, who is at fault and what the reader does about it.

```
AntiphonError
├── ConfigurationError        the operator: a setting, a URL, a module, a schema that is behind      exit 78
│   ├── DefinitionError       the author: a saga or message class is wrong, all problems at once
│   └── TopologyMismatch      the broker already has something of that name, otherwise
├── MessageError              the sender: this message cannot be processed, it becomes a dead letter
│   ├── MalformedMessage      not our JSON, no id, too deep, wrong fields
│   ├── OversizeMessage       longer than MAX_BODY
│   ├── UnknownMessage        nobody here knows that name or version
│   │   └── NewerMessage      a version that a process deployed later knows: held until it comes
│   ├── HeldTooLong           it came too early, and what it was for has not come
│   ├── NotAwaited            its saga does not take it now, and its class says that it is not to be kept
│   ├── TooOld                it was sent before what the inbox remembers, and nothing else tells it from a copy
│   ├── MissingKey            a message routed by business key that carries none
│   ├── IdConflict            an id that was used before for another body
│   ├── CorrelationConflict   id and key name different instances
│   ├── MethodRaised          the author's method raised while applying it
│   ├── HandlerRaised         the author's handler raised while carrying a command out
│   └── KilledProcess         the process died each time it was met, also when it was met alone
├── Trouble                   nobody: back off and run the batch again, it never counts against a message
│   ├── DatabaseAway          no connection, or it was lost before COMMIT was sent        exit 69 at start
│   ├── DatabaseBusy          deadlock, serialization, lock or statement timeout, resources
│   │   └── DatabaseExhausted a full disk, no connection left: it would be so for every message
│   ├── CommitUnknown         the connection was lost while COMMIT was under way
│   └── BrokerAway            no connection, blocked, or a confirm that does not come     exit 69 at start
└── OperationRefused          the caller of a command: it does not fit the state things are in        exit 1
```

`VERDICTS` is the table that says what the message path does with each; a test keeps it complete.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Verdict(StrEnum):
    """What the message path does when an error reaches it."""

    RETRY = "retry"  # back off, run the batch again
    DEAD_LETTER = "dead_letter"  # store the message raw with its reason, acknowledge it, go on
    CRASH = "crash"  # stop the process with a clear message


class AntiphonError(Exception):
    """The root. Catch this to catch everything that Antiphon raises on purpose."""

    def __init__(
        self, message: str, *, saga_type: str | None = None, saga_id: str | None = None, message_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.saga_type = saga_type
        self.saga_id = saga_id
        self.message_id = message_id


class ConfigurationError(AntiphonError):
    """Something outside the code is set up wrongly. Correct what the message names and start again."""


class DefinitionError(ConfigurationError, TypeError):
    """A class is wrong. Each line is `Class.method (file:line): problem; remedy`; all problems are listed."""


class TopologyMismatch(ConfigurationError):  # noqa: N818 - names the situation
    """A queue or exchange exists with other arguments. The message shows the difference."""


class MessageError(AntiphonError):
    """This message cannot be processed. It is kept raw as a dead letter under `reason`."""

    reason: ClassVar[str] = "unprocessable"

    @property
    def error_class(self) -> str:
        """What dead letters are grouped by beside the reason: the class of what an author's code raised, else ours."""
        return type(self).__name__


class MalformedMessage(MessageError):  # noqa: N818
    """The bytes or the properties are not a message of the wire contract. The sender must mend it."""

    reason = "malformed"


class OversizeMessage(MessageError):  # noqa: N818
    """The body is longer than MAX_BODY. Send a reference instead of the data."""

    reason = "oversize"


class UnknownMessage(MessageError):  # noqa: N818
    """No class is registered for this name (or this version of it). Deploy the code that knows it, then replay."""

    reason = "unknown_message"


class NewerMessage(UnknownMessage):
    """Its schema-version is higher than any this process knows. A saga holds it until it is deployed."""

    reason = "newer_version"


class HeldTooLong(MessageError):  # noqa: N818
    """It came before the instance that it is for, and that did not come in a day. Find out, then replay or discard."""

    reason = "held_too_long"


class NotAwaited(MessageError):  # noqa: N818
    """No saga of its key takes it, or not at this point, and the class says `"dead_letter"`. Find out, then replay."""

    reason = "not_awaited"


class TooOld(MessageError):  # noqa: N818
    """It was sent longer ago than the inbox remembers, so that it may be a copy. If it was never handled, replay it."""

    reason = "too_old"


class MissingKey(MessageError):  # noqa: N818
    """The body lacks the business key that must route it, or the key is not a valid one."""

    reason = "no_key"


class IdConflict(MessageError):  # noqa: N818
    """This message id was used before with another body. The sender reuses ids; it must not."""

    reason = "id_conflict"


class CorrelationConflict(MessageError):  # noqa: N818
    """`correlation_id` and the business key name different instances."""

    reason = "correlation_conflict"


class MethodRaised(MessageError):  # noqa: N818
    """A method of the saga raised. Mend the class, deploy, then retry the instance or replay the dead letter."""

    reason = "method_raised"

    @property
    def error_class(self) -> str:
        """The class of what it raised."""
        return type(self.__cause__ or self).__name__


class HandlerRaised(MessageError):  # noqa: N818
    """A participant's handler raised, and its work was rolled back. Mend it; the saga sends the command again."""

    reason = "handler_raised"

    @property
    def error_class(self) -> str:
        """The class of what it raised."""
        return type(self.__cause__ or self).__name__


class KilledProcess(MessageError):  # noqa: N818
    """Three processes died while they had this message and no other. Find out why, mend it, then replay it."""

    reason = "killed_process"


class Trouble(AntiphonError):  # noqa: N818
    """Nobody's fault. The batch runs again after a pause and no message is the worse for it."""


class DatabaseAway(Trouble):
    """No connection to the database, or it was lost before COMMIT was sent: nothing was committed."""


class DatabaseBusy(Trouble):
    """Deadlock, serialization failure, lock or statement timeout, resources: the transaction was rolled back."""


class DatabaseExhausted(DatabaseBusy):
    """The database has run out of something that every transaction needs, so that no message can be to blame."""


class CommitUnknown(Trouble):
    """The connection was lost while COMMIT was under way: it may or may not have committed."""


class BrokerAway(Trouble):
    """No connection to the broker, or the broker blocks publishers."""


class OperationRefused(AntiphonError):  # noqa: N818
    """What was asked does not fit the state things are in. Nothing was changed."""


VERDICTS: dict[type[AntiphonError], Verdict] = {
    ConfigurationError: Verdict.CRASH,
    DefinitionError: Verdict.CRASH,
    TopologyMismatch: Verdict.CRASH,
    MessageError: Verdict.DEAD_LETTER,
    MalformedMessage: Verdict.DEAD_LETTER,
    OversizeMessage: Verdict.DEAD_LETTER,
    UnknownMessage: Verdict.DEAD_LETTER,
    NewerMessage: Verdict.DEAD_LETTER,
    HeldTooLong: Verdict.DEAD_LETTER,
    NotAwaited: Verdict.DEAD_LETTER,
    TooOld: Verdict.DEAD_LETTER,
    MissingKey: Verdict.DEAD_LETTER,
    IdConflict: Verdict.DEAD_LETTER,
    CorrelationConflict: Verdict.DEAD_LETTER,
    MethodRaised: Verdict.DEAD_LETTER,
    HandlerRaised: Verdict.DEAD_LETTER,
    KilledProcess: Verdict.DEAD_LETTER,
    Trouble: Verdict.RETRY,
    DatabaseAway: Verdict.RETRY,
    DatabaseBusy: Verdict.RETRY,
    DatabaseExhausted: Verdict.RETRY,
    CommitUnknown: Verdict.RETRY,
    BrokerAway: Verdict.RETRY,
    OperationRefused: Verdict.CRASH,
}
