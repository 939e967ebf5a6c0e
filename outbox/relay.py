"""The relay: committed messages reach the broker, each until it is confirmed and routed, or visibly stuck.

Rows of this process's own transactions come straight from memory after their commit, born claimed; what others left
behind is swept. A row belongs to whoever holds its token until its lease ends, nothing is published shortly before
that, and no transaction is open while the broker is spoken to. Confirmed rows wait a moment in memory, to be deleted in
bulk by the next batch.

A destination that gives everything back gets one row now and then as a probe (`outbox.breaker`), and one that answers
slowly gets a share of the memory (`outbox.in_flight`): whatever else waits for either stays in the table, untouched.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from messages.errors import BrokerAway, Trouble
from messages.value import value
from outbox.abandoned import AT_ONCE
from outbox.breaker import Breaker, State
from outbox.facts import (
    CircuitClosed,
    CircuitOpened,
    EventUnrouted,
    LoopTroubled,
    MessagesAbandoned,
    PublicationFailed,
)
from outbox.in_flight import InFlight
from outbox.interface import RowOutcome
from running import happens
from transport.interface import Publication, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from uuid import UUID

    from outbox.interface import ClaimedRow, Destination, Outgoing, Storage
    from running import Runner
    from transport.interface import Outcome, Publisher

SWEEP_LIMIT = 500
_MARGIN = 2.0  # seconds before a lease's end in which nothing is published any more
_SLOWEST_RETRY = 60.0
_DOUBLINGS = 10  # beyond the slowest retry; a row may be tried for weeks, and a power of that has no float
_REFUSED_RETRY = 600.0
_PATIENCE = 8 * 86_400.0


@value
class Lease:
    """What a transaction needs to let its rows be born claimed: so many, and none to where it is closed.

    `until` is on the runner's monotonic clock.
    """

    token: UUID
    seconds: float
    until: float
    limit: int
    closed: frozenset[Destination]


class Relay:
    """One per process. `run` until `stop`."""

    name = "relay"

    def __init__(
        self,
        storage: Storage,
        publisher: Publisher,
        runner: Runner,
        report: Callable[[object], None],
        *,
        lease: float = 15.0,
        confirm_timeout: float = 5.0,
        sweep: float = 1.0,
        patience: float = _PATIENCE,
    ) -> None:
        """In seconds: how long a claim lasts, how long a confirm may take, how often to look for leftovers, and how
        long what no instance waits for may stay when its queue is gone."""
        self._storage = storage
        self._publisher = publisher
        self._runner = runner
        self._report = report
        self._lease_seconds = lease
        self._margin = min(_MARGIN, lease / 3)
        self._confirm_timeout = confirm_timeout
        self._sweep_seconds = sweep
        self._patience = patience
        self._wake = asyncio.Event()
        self._in_flight = InFlight(thinned=self._wake.set)
        self._breaker = Breaker()
        self._reopened: set[Destination] = set()  # whose rows wait for an attempt later than need be
        self._gone: set[Destination] = set()  # queues that are none, and have been waited for long enough
        self._confirmed: list[tuple[int, UUID]] = []
        self._failed: list[RowOutcome] = []
        self._failures: dict[tuple[Verdict, str], PublicationFailed] = {}
        self._strays: list[tuple[ClaimedRow, str]] = []  # events that came back, with the broker's words
        self._mentions = 0
        self._stopping = False

    # -- for the message path

    def lease(self) -> Lease:
        """A fresh token and as much room as there is: none while the broker cannot take anything."""
        room = self._in_flight.room if self._publisher.ready and not self._stopping else 0
        until = self._runner.monotonic() + self._lease_seconds
        return Lease(
            token=self._runner.token(), seconds=self._lease_seconds, until=until, limit=room, closed=self._closed()
        )

    async def publish(self, rows: Sequence[ClaimedRow], until: float) -> None:
        """Publish rows this process has claimed. What there is no room for, or no taker, goes back to the table.

        Nothing is written any more once their lease is nearly over: whoever sweeps next takes them.
        """
        fitting = self._in_flight.fitting(rows, self._breaker.open)
        if len(fitting) < len(rows):
            taken = {row.outbox_id for row in fitting}
            await self._release([row for row in rows if row.outbox_id not in taken])
        await self._hand_over(fitting, until)

    async def _hand_over(self, rows: Sequence[ClaimedRow], until: float) -> None:
        now = self._runner.monotonic()
        left = until - self._margin - now
        if left <= 0:
            self._not_sent(rows)
        if not rows or left <= 0:
            return
        tickets = [self._in_flight.add(row, until=until, now=now) for row in rows]
        publications = [_publication(ticket, row) for ticket, row in zip(tickets, rows, strict=True)]
        try:
            async with self._runner.timeout(left):
                await self._publisher.publish(publications)
        except TimeoutError:
            return  # others were writing, slowly; what was not written gets no answer and is given up on
        except BrokerAway:
            for ticket in tickets:
                self._in_flight.pop(ticket)
            self._not_sent(rows)
            await self._release(rows)

    def _not_sent(self, rows: Iterable[ClaimedRow]) -> None:
        """No outcome will come: a probe among them has decided nothing."""
        for row in rows:
            self._breaker.undecided(row.outgoing.destination, self._runner.monotonic(), self._runner.random())

    async def mention(self, outgoing: Outgoing) -> None:
        """Publish what may get lost, once: it is in no table, and nobody asks what became of it."""
        self._mentions -= 1
        publication = Publication(
            ticket=self._mentions,  # no row's, so that its outcome is passed over
            exchange=outgoing.exchange,
            routing_key=outgoing.routing_key,
            envelope=outgoing.envelope,
        )
        with suppress(TimeoutError, BrokerAway):
            async with self._runner.timeout(self._confirm_timeout):
                await self._publisher.publish([publication])

    def take_confirmed(self) -> list[tuple[int, UUID]]:
        """The rows whose confirm has arrived, for the next transaction to delete; `give_back` them if it fails."""
        confirmed, self._confirmed = self._confirmed, []
        return confirmed

    def give_back(self, confirmed: Iterable[tuple[int, UUID]]) -> None:
        """The transaction that was to delete them failed."""
        self._confirmed.extend(confirmed)

    def handed_over(self) -> Mapping[str, float]:
        """In process: the ids of messages that consumers here have and have not settled, with the seconds since.

        Their rows still stand, but they are not waiting to be sent. Empty where a confirm means that the broker has it.
        """
        if not self._publisher.holds:
            return {}
        now = self._runner.monotonic()
        return {each.row.outgoing.envelope.message_id: now - each.sent_at for _, each in self._in_flight}

    def look(self) -> None:
        """Somebody else has put something into the table: it waits for no sweep."""
        self._wake.set()

    # -- the loops

    async def run(self) -> None:
        """Read outcomes, sweep, delete what was confirmed, until stopped; then see to what is under way."""
        outcomes = self._runner.start(self._read_outcomes(), name="relay.outcomes")
        try:
            while not self._stopping:
                await self._guarded(self._tick)
                if outcomes.done():
                    outcomes.result()  # nobody would hear the broker any more: this life ends, the next one listens
                await self._pause()
        finally:
            await self._drain(outcomes)

    async def catch_up(self) -> None:
        """Publish what was left behind, as far as there is room for it in memory; at a start, before `run`.

        Raises:
            Trouble: the database is away or busy; call it again.
        """
        await self._tick()

    def stop(self) -> None:
        """Claim nothing more; `run` returns once what is under way has ended or waited long enough."""
        self._stopping = True
        self._wake.set()

    async def _read_outcomes(self) -> None:
        while outcomes := await self._publisher.outcomes():
            for outcome in outcomes:
                self._take(outcome)

    async def _tick(self) -> None:
        if self._publisher.holds:
            self._believe_probes()
            await self._keep_leases()
        else:
            self._give_up_on_silent()
        await self._tidy_up()
        await self._probe()
        while await self._round():
            await self._tidy_up()

    async def _tidy_up(self) -> None:
        """Write down what became of publications, so that it does not heap up here."""
        await self._sort_strays()
        await self._settle()
        await _each(self._reopened, self._storage.hurry_outbox)
        await _each(self._gone, self._abandon)

    async def _abandon(self, destination: Destination) -> None:
        _, queue = destination
        ended = AT_ONCE
        while ended == AT_ONCE:
            gone = await self._storage.abandon(queue, self._patience)
            ended, letters = len(gone), sum(letter is not None for letter in gone)
            if ended:
                self._report(
                    MessagesAbandoned(queue=queue, replies=ended - letters, letters=letters, age=self._patience)
                )

    async def _round(self) -> bool:
        """Claim and publish once; whether there may be more, and room for it."""
        room = min(self._in_flight.room, SWEEP_LIMIT)
        if self._stopping or not self._publisher.ready or not room:
            return False
        token, until = self._runner.token(), self._runner.monotonic() + self._lease_seconds
        most = max(1, self._in_flight.byte_room)
        rows = await self._storage.claim_outbox(
            token=token, lease=self._lease_seconds, limit=room, max_bytes=most, closed=self._closed()
        )
        await self.publish(rows, until)
        return len(rows) == room or sum(len(row.outgoing.envelope.body) for row in rows) >= most

    async def _probe(self) -> None:
        """Publish one row to every destination whose pause is over; where none waits any more, all is well."""
        if self._stopping or not self._publisher.ready:
            return
        waiting = self._breaker.probes(self._runner.monotonic())
        try:
            while waiting:
                token, until = self._runner.token(), self._runner.monotonic() + self._lease_seconds
                rows = await self._storage.claim_probe(waiting[0], token=token, lease=self._lease_seconds)
                destination = waiting.pop(0)
                if rows:
                    await self._hand_over(rows, until)
                else:
                    self._close_circuit(destination)
        finally:
            for destination in waiting:  # half-open, and nothing was published that could decide
                self._breaker.undecided(destination, self._runner.monotonic(), self._runner.random())

    def _believe_probes(self) -> None:
        """In process a probe that did not come back at once was taken, however long its consumer works on it."""
        if not self._breaker.open:
            return
        for destination in {flying.row.outgoing.destination for _, flying in self._in_flight}:
            if self._breaker.state(destination) is State.HALF_OPEN:
                self._close_circuit(destination)

    def _closed(self) -> frozenset[Destination]:
        """Where nothing more is published to for now: it comes back, or too much is on its way there already."""
        return self._breaker.open | self._in_flight.crowded()

    async def _pause(self) -> None:
        await happens(self._wake, self._runner, within=self._sweep_seconds)
        self._wake.clear()

    async def _guarded(self, work: Callable[[], object]) -> None:
        try:
            await work()  # type: ignore[misc]
        except Trouble as error:
            self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=self._sweep_seconds))

    async def _drain(self, outcomes: asyncio.Task[None]) -> None:
        """Wait for confirms already on their way, then leave the table as it should be found."""
        deadline = self._runner.monotonic() + (0.0 if self._publisher.holds else self._confirm_timeout)
        while len(self._in_flight) and not outcomes.done() and self._runner.monotonic() < deadline:
            await self._runner.sleep(0.01)
        outcomes.cancel()
        await asyncio.wait([outcomes])
        for ticket, flying in self._in_flight:
            self._in_flight.pop(ticket)
            self._fail(flying.row, Verdict.UNKNOWN, "the process stopped before it was confirmed", retry_in=0.0)
        await self._guarded(self._sort_strays)
        await self._guarded(self._settle)

    # -- outcomes

    def _take(self, outcome: Outcome) -> None:
        flying = self._in_flight.pop(outcome.ticket)
        if flying is None:
            return  # given up on before; the row has been or will be published again under the same id
        row = flying.row
        if outcome.verdict is Verdict.CONFIRMED:
            self._confirmed.append((row.outbox_id, row.token))
            self._close_circuit(row.outgoing.destination)
        elif outcome.verdict is Verdict.RETURNED and row.outgoing.exchange.endswith(".events"):
            self._strays.append((row, outcome.reason))
        else:
            self._fail(row, outcome.verdict, outcome.reason)
            if outcome.verdict is Verdict.RETURNED and row.age > self._patience and _is_for_a_queue(row.outgoing):
                self._gone.add(row.outgoing.destination)
            return
        if _has_order_key(row.outgoing):
            self._wake.set()  # or each of those behind it would wait for a sweep of its own

    async def _sort_strays(self) -> None:
        """An event that no queue took is done, unless a saga type of this namespace consumes it.

        The database knows all of them, also one that another process has just deployed and whose queue comes next.
        """
        if not self._strays:
            return
        consumed = await self._storage.consumed_events()
        strays, self._strays = self._strays, []
        for row, reason in strays:
            name = row.outgoing.envelope.name
            if name in consumed:
                self._fail(row, Verdict.RETURNED, reason)
            else:
                self._confirmed.append((row.outbox_id, row.token))
                self._close_circuit(row.outgoing.destination)
                self._report(EventUnrouted(message_id=row.outgoing.envelope.message_id, name=name))

    def _came_back(self, verdict: Verdict) -> bool:
        """Whether where it went takes nothing; a full queue in this process says nothing."""
        return verdict is Verdict.RETURNED or (verdict is Verdict.NACKED and not self._publisher.holds)

    def _judge(self, destination: Destination, verdict: Verdict, reason: str) -> None:
        """What the end of a publication says about where it went."""
        now, chance = self._runner.monotonic(), self._runner.random()
        if not self._came_back(verdict):
            self._breaker.undecided(destination, now, chance)
        elif (probe_in := self._breaker.came_back(destination, now, chance)) is not None:
            exchange, routing_key = destination
            self._report(CircuitOpened(exchange=exchange, routing_key=routing_key, reason=reason, probe_in=probe_in))

    def _close_circuit(self, destination: Destination) -> None:
        opened_at = self._breaker.confirmed(destination)
        if opened_at is not None:
            exchange, routing_key = destination
            after = self._runner.monotonic() - opened_at
            self._report(CircuitClosed(exchange=exchange, routing_key=routing_key, after=after))
            self._reopened.add(destination)
            self._wake.set()

    def _fail(self, row: ClaimedRow, verdict: Verdict, reason: str, *, retry_in: float | None = None) -> None:
        if retry_in is None:
            growing = min(2.0 ** min(row.attempts, _DOUBLINGS) / 2, _SLOWEST_RETRY)
            retry_in = _REFUSED_RETRY if verdict is Verdict.REFUSED else growing
        state = {Verdict.RETURNED: "returned", Verdict.REFUSED: "refused"}.get(verdict, "unknown")
        self._judge(row.outgoing.destination, verdict, reason)
        if verdict is Verdict.NACKED and self._publisher.holds:
            state, retry_in = "new", self._sweep_seconds  # a full queue in this process: nothing was handed over
        self._failed.append(
            RowOutcome(
                outbox_id=row.outbox_id,
                token=row.token,
                state=state,
                retry_in=retry_in,
                error=reason,
                came_back=self._came_back(verdict),
            )
        )
        self._note_failure(row, verdict, reason, retry_in)

    def _note_failure(self, row: ClaimedRow, verdict: Verdict, reason: str, retry_in: float) -> None:
        """Gather what is alike until the next look: a missing participant must not flood the log, row by row."""
        envelope = row.outgoing.envelope
        alike = self._failures.get((verdict, envelope.name))
        self._failures[verdict, envelope.name] = PublicationFailed(
            message_id=envelope.message_id,
            name=envelope.name,
            saga_id=row.outgoing.saga_id,
            verdict=verdict.value,
            reason=reason,
            attempts=row.attempts + 1,
            retry_in=retry_in,
            count=alike.count + 1 if alike else 1,
        )

    def _give_up_on_silent(self) -> None:
        oldest = self._runner.monotonic() - self._confirm_timeout
        for ticket, flying in self._in_flight:
            if flying.sent_at < oldest:
                self._in_flight.pop(ticket)
                self._fail(flying.row, Verdict.UNKNOWN, f"no confirm within {self._confirm_timeout:g} s")

    async def _keep_leases(self) -> None:
        """In process a confirm takes as long as the slowest consumer: hold on to what it still works on."""
        soon = self._runner.monotonic() + self._lease_seconds * 2 / 3
        by_token: dict[UUID, dict[int, int]] = {}
        for ticket, flying in self._in_flight:
            if flying.until < soon:
                by_token.setdefault(flying.row.token, {})[ticket] = flying.row.outbox_id
        for token, tickets in by_token.items():
            await self._renew(token, tickets)

    async def _renew(self, token: UUID, flying: Mapping[int, int]) -> None:
        until = self._runner.monotonic() + self._lease_seconds
        await self._storage.renew_leases(token, list(flying.values()), self._lease_seconds)
        for ticket in flying:
            self._in_flight.prolong(ticket, until)

    async def _settle(self) -> None:
        confirmed, self._confirmed = self._confirmed, []
        failed, self._failed = self._failed, []
        failures, self._failures = self._failures, {}
        for fact in failures.values():
            self._report(fact)
        if not confirmed and not failed:
            return
        try:
            await self._storage.settle_outbox(confirmed=confirmed, failed=failed)
        except BaseException:
            self._confirmed.extend(confirmed)
            self._failed.extend(failed)
            raise

    async def _release(self, rows: Sequence[ClaimedRow]) -> None:
        try:
            await self._storage.release_leases([(row.outbox_id, row.token) for row in rows])
        except Trouble as error:  # then their leases end by themselves
            self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=self._lease_seconds))


def _publication(ticket: int, row: ClaimedRow) -> Publication:
    outgoing = row.outgoing
    return Publication(
        ticket=ticket,
        exchange=outgoing.exchange,
        routing_key=outgoing.routing_key,
        envelope=outgoing.envelope,
        attempts=row.attempts,
        raw=None if outgoing.given_back is None else outgoing.given_back.raw,
    )


async def _each(destinations: set[Destination], work: Callable[[Destination], Awaitable[None]]) -> None:
    """Do this for each, and forget it then."""
    while destinations:
        destination = destinations.pop()
        try:
            await work(destination)
        except BaseException:
            destinations.add(destination)
            raise


def _is_for_a_queue(outgoing: Outgoing) -> bool:
    """Whether it goes straight to a queue and no instance waits for that: a reply, or a letter that is given back."""
    return outgoing.saga_id is None and not outgoing.exchange


def _has_order_key(outgoing: Outgoing) -> bool:
    """Whether others may have queued up behind it: a saga rarely has two messages of one path on their way."""
    return outgoing.saga_id is None and outgoing.path is not None
