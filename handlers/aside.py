"""The messages of a saga type that are met apart from the batches, so that one that cannot be done delays no other.

Four kinds come here: a batch that the database refuses or keeps failing on, which is halved down to the culprit; a
message whose instance another process holds for long, to be waited for; one that may have killed a process, to be met
alone; and whatever arrives for an instance of which something is here already, to keep its place behind that.

What has no fault is done here or goes back to the batches. A culprit that failed alone often and long enough, while a
probe of the database succeeded, becomes a dead letter.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from handlers.blame import Failures, is_to_blame
from handlers.facts import MessagesSetAside
from handlers.handle import Attempt
from handlers.suspects import accused_message, killed_process
from messages.errors import MessageError, Trouble
from messages.value import value
from outbox.facts import LoopTroubled
from running import happens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from handlers.decoding import Decoded
    from handlers.handle import Handler
    from handlers.suspects import Suspects
    from messages.envelope import Raw
    from outbox.interface import Accused
    from running import Runner
    from transport.interface import Consumer, Delivery

_FIRST_PAUSE = 0.05
_SLOWEST_RETRY = 5.0
_LONGEST_WAIT = 15.0  # between two tries of one that fails alone
_DOUBLINGS = 10


@value
class InHand:
    """A delivery in hand, the `number`-th to arrive. `tries` counts the batches that had to leave it for the next."""

    number: int
    delivery: Delivery
    decoded: Decoded
    tries: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class _Piece:
    """Messages that are tried together. `notes`: of a suspect, in how many processes it was; None is not looked up yet.

    `ties` are the instances that they may be for. `follows`: it is here only because of those before it. `troubles`
    count the tries in a row that failed, `failures` those of them that were its own doing.
    """

    messages: list[InHand]
    ties: frozenset[UUID]
    attempt: Attempt
    due: float = 0.0
    follows: bool = False
    suspect: bool = False
    notes: int | None = 0
    refused: bool = False
    troubles: int = 0
    failures: Failures = field(default_factory=Failures)


class Aside:
    """One per life of a consumer. Pieces stand in the order in which their messages arrived."""

    def __init__(
        self,
        handler: Handler,
        consumer: Consumer,
        suspects: Suspects,
        runner: Runner,
        report: Callable[[object], None],
        *,
        name: str,
        decode: Callable[[Raw], Decoded],
    ) -> None:
        self._handler = handler
        self._consumer = consumer
        self._suspects = suspects
        self._runner = runner
        self._report = report
        self._name = name
        self._decode = decode
        self._pieces: list[_Piece] = []
        self._freed: list[InHand] = []
        self._at_work: _Piece | None = None
        self._changed = asyncio.Event()
        self._stopping = False
        self.working: asyncio.Task[None] | None = None
        self.freeing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __len__(self) -> int:
        """How many messages are here."""
        return sum(len(piece.messages) for piece in self._pieces) + len(self._freed)

    # -- in

    def take(self, messages: Sequence[InHand], error: Exception) -> None:
        """A batch that cannot be committed as it is."""
        self._tell(len(messages), str(error))
        middle = len(messages) // 2
        for part in (messages[:middle], messages[middle:]):
            if part:
                self._add(self._piece(part))

    def wait_for(self, message: InHand) -> None:
        """A message whose instance another process does not let go of."""
        self._tell(1, "another transaction holds its instance")
        self._add(self._piece([message]))

    def suspect(self, unread: Sequence[InHand]) -> None:
        """Deliveries that may have killed a process."""
        if not unread:
            return
        least = min(each.delivery.delivery_count for each in unread)
        self._tell(len(unread), f"handed out {least} times or more without an end: one may have killed the process")
        self._drop_void(unread[0].delivery.channel)
        for each in unread:
            piece = self._piece([each])
            piece.suspect, piece.notes = True, None
            self._add(piece)

    def screened(self, messages: list[InHand]) -> list[InHand]:
        """Those that go on in batches. One for an instance of which an earlier one is here queues up behind that."""
        if not self._pieces and not self._freed:
            return messages
        earliest = self._earliest()
        on: list[InHand] = []
        for each in messages:
            ties = self._handler.instances(each.decoded)
            if any(earliest.get(tie, each.number) < each.number for tie in ties):
                self._drop_void(each.delivery.channel)
                piece = self._piece([each])
                piece.follows = True
                self._add(piece)
            else:
                on.append(each)
        self._free()
        return on

    def _earliest(self) -> dict[UUID, int]:
        """The first message here of each instance."""
        earliest: dict[UUID, int] = {}
        for piece in self._pieces:
            for tie in piece.ties:
                earliest.setdefault(tie, piece.messages[0].number)
        for each in self._freed:
            for tie in self._handler.instances(each.decoded):
                earliest[tie] = min(each.number, earliest.get(tie, each.number))
        return earliest

    # -- out

    def freed(self, room: int) -> list[InHand]:
        """Up to so many of those that may go on in batches again, in order; `freeing` is done when there are any."""
        freed, self._freed = self._freed[:room], self._freed[room:]
        if self.freeing.done() and not self._freed:
            self.freeing = asyncio.get_running_loop().create_future()
        return freed

    async def stop(self) -> None:
        """Finish the try under way, begin no other."""
        self._stopping = True
        self._changed.set()
        if self.working is not None:
            await self.working

    # -- the work

    def _piece(self, messages: Sequence[InHand], *, due: float = 0.0) -> _Piece:
        return _Piece(messages=list(messages), ties=self._ties(messages), attempt=self._attempt(messages), due=due)

    def _add(self, piece: _Piece) -> None:
        insort(self._pieces, piece, key=lambda each: each.messages[0].number)
        self._changed.set()
        if self.working is None or self.working.done():
            self.working = self._runner.start(self._work(), name=f"{self._name}.aside")

    async def _work(self) -> None:
        while self._pieces and not self._stopping:
            self._changed.clear()
            if any(piece.notes is None for piece in self._pieces):
                await self._look_up()
            piece = self._next()
            if piece is None:
                await self._pause()
                continue
            self._at_work = piece
            await self._meet(piece)
            self._at_work = None
            self._free()

    async def _look_up(self) -> None:
        """The least suspected go first: whoever is innocent must not wait behind whoever kills the process."""
        new = [piece for piece in self._pieces if piece.notes is None]
        try:
            noted = await self._suspects.noted([self._accused(piece) for piece in new])
        except Trouble as error:
            await self._runner.sleep(self._troubled(new[0], error))
            return
        for piece, notes in zip(new, noted, strict=True):
            piece.notes = notes

    def _next(self) -> _Piece | None:
        """The one to try: due, behind nothing of its own instances, the least suspected, the longest due."""
        now = self._runner.monotonic()
        free = [piece for piece in self._free_pieces() if not piece.follows and piece.due <= now]
        return min(free, key=lambda piece: (piece.notes or 0, piece.due), default=None)

    def _free_pieces(self) -> list[_Piece]:
        """Those behind nothing of their own instances; the first always is."""
        tied: frozenset[UUID] = frozenset()
        free = []
        for piece in self._pieces:
            if not piece.ties & tied:
                free.append(piece)
            tied |= piece.ties
        return free

    async def _pause(self) -> None:
        soonest = min(piece.due for piece in self._free_pieces())
        await happens(self._changed, self._runner, within=max(0.0, soonest - self._runner.monotonic()))

    async def _meet(self, piece: _Piece) -> None:
        try:
            if piece.suspect:
                async with self._suspects.alone():
                    await self._try_alone(piece)
            else:
                await self._try(piece)
        except Trouble as error:
            await self._judge(piece, error)
        except MessageError as error:
            if piece.refused:
                raise  # not even its dead letter can be stored
            if len(piece.messages) == 1:
                self._refuse(piece, error)
            else:
                self._halve(piece)

    async def _try(self, piece: _Piece) -> None:
        """Commit what can be; what another process holds is waited for only by itself.

        Raises:
            Trouble, MessageError: nothing was committed, or nobody knows.
        """
        wait = len(piece.messages) == 1
        decoded = [each.decoded for each in piece.messages]
        prepared = await self._handler.handle(decoded, piece.attempt, wait=wait)
        await self._handler.finish(prepared, len(decoded))
        if piece.suspect:
            await self._suspects.acquit(self._accused(piece))
        deferred = [each for index, each in enumerate(piece.messages) if index in prepared.deferred]
        done = [each for index, each in enumerate(piece.messages) if index not in prepared.deferred]
        self._replace(piece, [[each] for each in deferred])
        await self._consumer.settle([each.delivery for each in done])

    async def _try_alone(self, piece: _Piece) -> None:
        if not piece.refused:
            (message,) = piece.messages
            if not await self._suspects.note(self._accused(piece)):
                self._refuse(piece, killed_process(self._accused(piece)))
            else:
                piece.messages = [replace(message, decoded=self._decode(message.delivery.raw))]
                piece.ties |= self._ties(piece.messages)
        await self._try(piece)

    def _accused(self, piece: _Piece) -> Accused:
        return accused_message(self._handler.consumer, piece.messages[0].delivery.raw)

    # -- what becomes of a piece that failed

    async def _judge(self, piece: _Piece, error: Trouble) -> None:
        """Trouble: of a piece of many its half may be better off; of one, it counts if the database is not to blame."""
        if self._stopping:
            return
        if piece.refused or not await self.blames(error):
            self._troubled(piece, error)
        elif len(piece.messages) > 1:
            self._halve(piece)
        else:
            self._failed(piece, error)

    async def blames(self, error: Trouble) -> bool:
        """Whether what failed may be to blame for it."""
        return await is_to_blame(self._handler.storage, error)

    def _failed(self, piece: _Piece, error: Trouble) -> None:
        refusal = piece.failures.another(error, self._runner.monotonic())
        if refusal is not None:
            self._refuse(piece, refusal)
        else:
            self._troubled(piece, error, longest=_LONGEST_WAIT)

    def _troubled(self, piece: _Piece, error: Trouble, *, longest: float = _SLOWEST_RETRY) -> float:
        growing = _FIRST_PAUSE * 2.0 ** min(piece.troubles, _DOUBLINGS)
        pause: float = min(growing, longest) * (1 + self._runner.random())
        piece.troubles += 1
        piece.due = self._runner.monotonic() + pause
        self._report(LoopTroubled(loop=f"{self._name}.aside", error=str(error), retry_in=pause))
        return pause

    def _refuse(self, piece: _Piece, error: MessageError) -> None:
        """It becomes a dead letter: what is handled from now on is only that."""
        (message,) = piece.messages
        decoded = replace(message.decoded, event=None, marker=None, key=None, claims=None, error=error)
        piece.messages = [replace(message, decoded=decoded)]
        piece.attempt, piece.refused, piece.due = self._attempt(piece.messages), True, self._runner.monotonic()

    def _halve(self, piece: _Piece) -> None:
        middle = len(piece.messages) // 2
        self._replace(piece, [piece.messages[:middle], piece.messages[middle:]])

    def _replace(self, piece: _Piece, parts: list[list[InHand]]) -> None:
        """Parts take the place of a piece, and come behind everything else that is due."""
        now = self._runner.monotonic()
        index = self._pieces.index(piece)
        self._pieces[index : index + 1] = [self._piece(part, due=now) for part in parts if part]

    # -- who waits for whom

    def _free(self) -> None:
        """Let those go that are here only for what stood before them, and nothing does any more."""
        kept: list[_Piece] = []
        tied: frozenset[UUID] = frozenset()
        for piece in self._pieces:
            if piece.follows and not piece.ties & tied:
                self._freed += piece.messages
            else:
                kept.append(piece)
                tied |= piece.ties
        self._pieces = kept
        self._freed.sort(key=lambda each: each.number)
        if self._freed and not self.freeing.done():
            self.freeing.set_result(None)

    def _drop_void(self, channel: int) -> None:
        """What came on an earlier channel is void, and comes again on this one; what has failed here is remembered."""
        self._pieces = [
            piece
            for piece in self._pieces
            if piece is self._at_work
            or not (piece.follows or piece.suspect)
            or piece.messages[0].delivery.channel >= channel
        ]

    def _ties(self, messages: Iterable[InHand]) -> frozenset[UUID]:
        return frozenset(tie for each in messages for tie in self._handler.instances(each.decoded))

    def _attempt(self, messages: Sequence[InHand]) -> Attempt:
        return Attempt(token=self._runner.token(), alone=len(messages) == 1, locking=True)

    def _tell(self, messages: int, reason: str) -> None:
        self._report(MessagesSetAside(consumer=self._handler.consumer, messages=messages, reason=reason))
