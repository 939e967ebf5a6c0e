"""The seam to the database: one transaction as about ten batch calls.

The message path, the timers, the relay and the participants are written against these protocols; `outbox.unit`
carries them out in SQL, on PostgreSQL and on SQLite, which pass one conformance suite. What each promises:

- locks are taken in the order saga key, saga, inbox, alias, held, timer, outbox, dead letter, in a table in that of its
  key;
- errors reach the caller as `messages.errors`: `DatabaseAway` and `DatabaseBusy` mean that nothing was committed,
  `CommitUnknown` that nobody knows; a data error of the database is a `MessageError`;
- every await is bounded.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from messages.envelope import Envelope
from messages.value import value
from outbox.naming import Naming

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from uuid import UUID

    from messages.envelope import Raw
    from outbox.holding import Held, KnownType, RipeHeld
    from outbox.pressure import Backlog
    from outbox.unlocked import Unlocked
    from sagas.instance import Instance
    from sagas.items import Items, Rested, Want
    from sagas.outcome import HistoryEntry
    from sagas.watching import Watched

CLAIM_BYTES = 16 * 1024 * 1024
"""How many bytes of bodies one claim of the outbox may bring into memory."""

MessageKey = tuple[str, str]
"""(source, message id): what identifies a message to one consumer."""

Destination = tuple[str, str]
"""(exchange, routing key): where a message is published to."""


@value
class KeyClaim:
    """A start that wants the n-th instance of its type and key."""

    saga_type: str
    key: str
    saga_id: UUID
    n: int
    start_id: str
    start_hash: bytes


@value
class KeyOwner:
    """Who has the key: `mine` when this transaction inserted it, else the instance that had it before.

    `awaited`: messages are held for the instance that is about to be born.
    """

    saga_id: UUID
    n: int
    start_id: str
    start_hash: bytes
    mine: bool
    awaited: bool = False


@value
class Locked:
    """The instances that were locked, and those that another transaction holds. `now` is None when none was locked."""

    instances: Mapping[UUID, Instance]
    busy: frozenset[UUID]
    now: datetime | None


@value
class InboxEntry:
    """A message that is about to be applied; `body_hash` is SHA-256 of its bytes."""

    source: str
    message_id: str
    body_hash: bytes


@value
class InboxRow:
    """What the inbox already holds for an id."""

    body_hash: bytes
    token: UUID
    disposition: str


@value
class Claimed:
    """What the inbox said: `known` maps the ids that were there before to what is there; all others are new.

    An id that is there as `dead_lettered` counts as new: a dead-lettered copy does not make later copies duplicates.
    `now` is the database's clock, read after the locks were taken.
    """

    known: Mapping[MessageKey, InboxRow]
    now: datetime


@value
class HistoryRow:
    """A history entry of an instance, with the patch of the decision it opens (on the decision's first entry only)."""

    saga_id: UUID
    at: datetime
    entry: HistoryEntry
    patch: bytes | None = None


@value
class DeadLetter:
    """A message nobody could process, raw and complete. `body_hash` is SHA-256 of the body.

    `error_class` is what letters are grouped by beside the reason. `queue` is where the broker took it from, when it
    was the broker who gave up.
    """

    consumer: str
    source: str
    message_id: str
    name: str
    raw: Raw
    body_hash: bytes
    reason: str
    error: str
    error_class: str
    saga_id: UUID | None = None
    queue: str | None = None


@value
class GivenBack:
    """A dead letter on its way back to its queue: `raw` is what is published, as it is."""

    dead_letter_id: int
    raw: Raw

    def to(self, queue: str, *, message_id: str, name: str) -> Outgoing:
        """The message for the outbox, under the letter's id and name."""
        envelope = Envelope(message_id=message_id, name=name, body=self.raw.body)
        return Outgoing(envelope=envelope, exchange="", routing_key=queue, given_back=self)


@value
class Outgoing:
    """A message to put into the outbox. `path` is what order is promised for; a row without one waits for nobody.

    Of one that is `given_back` the envelope says no more than what it is called.
    """

    envelope: Envelope
    exchange: str
    routing_key: str
    saga_id: UUID | None = None
    path: str | None = None
    given_back: GivenBack | None = None

    @property
    def dead_letter_id(self) -> int | None:
        """The dead letter that is given back by it."""
        return None if self.given_back is None else self.given_back.dead_letter_id

    @property
    def destination(self) -> Destination:
        """Where it is published to."""
        return self.exchange, self.routing_key


@value
class ClaimedRow:
    """An outbox row that this process may publish until its lease ends. `attempts` counts earlier publications.

    `age` is how many seconds it was in the outbox when it was claimed.
    """

    outbox_id: int
    token: UUID
    attempts: int
    outgoing: Outgoing
    age: float = 0.0


@value
class RowOutcome:
    """How a publication of a row ended: its next `state`, when to try again (seconds from now), and why.

    `came_back`: its destination took nothing; that speaks for whatever else goes there (see `outbox.breaker`).
    """

    outbox_id: int
    token: UUID
    state: str  # new | unknown | returned | refused
    retry_in: float
    error: str = ""
    came_back: bool = False


@value
class Changes:
    """Everything one transaction writes, gathered so that it takes a handful of multi-row statements.

    `updated` holds (before, after); the row's revision must still be the one of `before`. Timer rows are the difference
    of their `armed` timers, attention rows that of their `attention`. `listed` are the lists of newborn instances that
    are kept item by item, `rested` the items that are done with for now. `held` are messages to hold, `reheld` those
    that are held on for another reason, `unheld` the numbers of those that are held no more, `ripened` instances that
    have come to what events are held for. Of the keys that were claimed, `released` were not used, and `reassigned` by
    another start, because the first raised. `claim` is (token, lease in seconds) for rows that this process publishes.
    """

    consumer: str
    inserted: Sequence[Instance] = ()
    updated: Sequence[tuple[Instance, Instance]] = ()
    released: Sequence[UUID] = ()
    reassigned: Sequence[KeyClaim] = ()
    history: Sequence[HistoryRow] = ()
    listed: Mapping[UUID, Mapping[str, Sequence[bytes]]] = field(default_factory=dict)
    rested: Sequence[tuple[UUID, Rested]] = ()
    dispositions: Mapping[MessageKey, str] = field(default_factory=dict)
    dead_letters: Sequence[DeadLetter] = ()
    held: Sequence[Held] = ()
    reheld: Sequence[Held] = ()
    unheld: Sequence[int] = ()
    ripened: Sequence[UUID] = ()
    outgoing: Sequence[Outgoing] = ()
    claim: tuple[UUID, float] | None = None
    claim_limit: int = 0
    closed: Collection[Destination] = ()
    confirmed: Sequence[tuple[int, UUID]] = ()


@value
class DueTimer:
    """A candidate: the timer row as it was seen without a lock, so many seconds after it fell due."""

    saga_id: UUID
    saga_type: str
    name: str
    fence: int
    late: float


@value
class Suspect:
    """An instance, what stands around it, and the database's time at which both were read."""

    instance: Instance
    seen: Watched
    now: datetime


@value
class Accused:
    """What may have killed a process: a message as one consumer meets it or as it is held, or a timer as it was armed.

    Of a message `body_hash` is SHA-256 of its bytes. Of a timer `source` is its saga and `body_hash` its fence.
    """

    consumer: str
    source: str
    message_id: str
    body_hash: bytes


class Unit(Naming, Protocol):
    """One transaction. Leaving its block commits; an exception rolls back."""

    async def claim_keys(self, claims: Sequence[KeyClaim]) -> Sequence[KeyOwner]:
        """Insert the keys, sorted by (type, key, n), on conflict do nothing; say who owns each, in the order given.

        Waits for a transaction that is inserting the same key.
        """
        ...

    async def latest_keys(self, saga_type: str, wanted: Collection[str]) -> Mapping[str, KeyOwner]:
        """Who has each key now, by key: the instance with the highest n; keys that nobody ever had are left out.

        For types whose keys may be used again. Takes no lock: whoever claims the next n finds out whether it is so.
        """
        ...

    async def lock(self, saga_ids: Collection[UUID], *, wait: bool = False) -> Locked:
        """Lock every instance in id order, in one statement; skip those another transaction holds unless `wait`."""
        ...

    async def look(self, saga_ids: Collection[UUID]) -> Sequence[Suspect]:
        """The instances of these ids as they stand, locked or not; those that are no more are left out."""
        ...

    async def claim_inbox(self, consumer: str, token: UUID, entries: Sequence[InboxEntry]) -> Claimed:
        """Insert the ids as `applied` under this batch's token; waits for whoever is inserting one of them."""
        ...

    async def awaited(self, saga_type: str, saga_ids: Collection[UUID]) -> frozenset[UUID]:
        """Those instances of the type for which messages are held that they would take. Locks nothing of these."""
        ...

    async def held_for(self, saga_type: str, saga_ids: Collection[UUID]) -> Sequence[Held]:
        """Lock the messages that are held for instances of the type, in order of arrival."""
        ...

    async def lock_held(self, held_ids: Collection[int]) -> Sequence[Held]:
        """Lock these held messages, in order of arrival; those that are gone, or that another has, are left out."""
        ...

    async def consumes(self, saga_type: str, name: str) -> bool:
        """Whether some version of the type that was ever recorded consumes an event of that name."""
        ...

    async def withdraw(self, message_ids: Collection[str]) -> frozenset[str]:
        """Delete those outbox rows that are still `new` or `returned`, and say which they were."""
        ...

    async def items(self, saga_id: UUID, have: Items, want: Want) -> Items:
        """What is at hand of an instance's items, with what is wanted of them."""
        ...

    async def unsent(self, saga_ids: Collection[UUID]) -> Mapping[UUID, frozenset[str]]:
        """The message ids of the commands that still sit in the outbox, by instance."""
        ...

    async def sent(self, sends: Collection[tuple[UUID, str]]) -> Mapping[tuple[UUID, str], HistoryRow]:
        """What was sent first under an id, by (saga id, message id): its history row, with the bytes and the cause."""
        ...

    async def save(self, changes: Changes) -> Sequence[ClaimedRow]:
        """Write everything, and return the outbox rows that were born claimed, in the order given.

        A row whose message id still stands in the outbox is made due again instead of added twice. A row is born
        claimed only when no older row of its (saga, path) exists.
        """
        ...


class Storage(Protocol):
    """The database."""

    @property
    def unlocked(self) -> Unlocked | None:
        """The way to save without locks, where there is one."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Unit]:
        """Begin a transaction (SQLite: immediate).

        Raises:
            DatabaseAway, DatabaseBusy: nothing was committed.
            CommitUnknown: only while committing.
        """
        ...

    async def due_timers(
        self, saga_types: Collection[str], limit: int, *, skip: int = 0
    ) -> tuple[Sequence[DueTimer], float | None]:
        """Timers due by the database's clock, the oldest first, and the seconds until the next one (or None).

        `skip` passes over that many of the oldest: those that were due before and could not be fired.
        """
        ...

    async def ripe_held(
        self, known: Collection[KnownType], limit: int, without: Collection[UUID] = ()
    ) -> Sequence[RipeHeld]:
        """Held messages that may be applied now by a process that knows these types, or have expired; oldest first.

        None for an instance `without`: those that could not be dealt with a moment ago.
        """
        ...

    async def suspects(self, after: UUID, limit: int) -> Sequence[UUID]:
        """Instances that the watchdog should look at, by id from behind `after`: those in trouble, or marked so."""
        ...

    async def claim_outbox(
        self,
        *,
        token: UUID,
        lease: float,
        limit: int,
        max_bytes: int = CLAIM_BYTES,
        closed: Collection[Destination] = (),
    ) -> Sequence[ClaimedRow]:
        """Claim rows that are due: state `claimed`, next attempt at the lease's end; only heads of their path.

        At most `limit` rows, and no more after the one whose body reaches `max_bytes` in all: one is always possible.
        None for a destination that is `closed`.
        """
        ...

    async def claim_probe(self, destination: Destination, *, token: UUID, lease: float) -> Sequence[ClaimedRow]:
        """Claim the oldest row for a destination, due or not; none where there is none that nobody holds."""
        ...

    async def backlog(self) -> Backlog:
        """What could go out now and has not been claimed, but for what goes where nothing was taken just now."""
        ...

    async def hurry_outbox(self, destination: Destination) -> None:
        """Make every row for a destination due at once that waits for its next attempt and can be published."""
        ...

    async def abandon(self, queue: str, age: float) -> Sequence[int | None]:
        """Remove what was put in for a queue more than `age` seconds ago, for no instance, and nobody holds now.

        Dead letters that were given back by it are opened again. Returns for each row that is gone its dead letter, or
        None; `outbox.abandoned.AT_ONCE` at most.
        """
        ...

    async def consumed_events(self) -> frozenset[str]:
        """The names of the events that the recorded saga types of this namespace consume."""
        ...

    async def settle_outbox(
        self, *, confirmed: Sequence[tuple[int, UUID]] = (), failed: Sequence[RowOutcome] = ()
    ) -> None:
        """Delete confirmed rows and reschedule failed ones; a row whose token has changed is left alone.

        A row of which any publication may have reached the broker stays `unknown`, whatever a later one says.
        """
        ...

    async def renew_leases(self, token: UUID, outbox_ids: Sequence[int], lease: float) -> frozenset[int]:
        """Prolong the leases of rows still held under `token`; returns the ids that still are."""
        ...

    async def release_leases(self, rows: Sequence[tuple[int, UUID]]) -> None:
        """Give rows that were not published back, due at once: `new`, or what they were after earlier publications."""
        ...

    async def probe(self) -> None:
        """A small transaction that writes, and could write to every table of the message path; changes nothing.

        Raises:
            Trouble: it is the database, and no message.
        """
        ...

    async def note_accused(self, message: Accused, life: UUID) -> int:
        """Note, and commit, that a process is about to meet it alone. How many have, this one included.

        `life` is one of the process: it notes a message once, however often it does so.
        """
        ...

    async def withdraw_notes(self, life: UUID) -> None:
        """Remove whatever this life has noted: it is still there, so nothing of that has killed it."""
        ...

    async def noted(self, wanted: Sequence[Accused]) -> Sequence[int]:
        """How often each was noted; all are of one consumer."""
        ...

    async def in_hand(self, wanted: Sequence[Accused]) -> Sequence[bool]:
        """Whether each was noted a moment ago, so that its process may be at it; all are of one consumer."""
        ...

    async def acquit(self, message: Accused) -> None:
        """It has come to an end: remove its note."""
        ...
