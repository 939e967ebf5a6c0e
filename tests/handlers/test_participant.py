"""The path of a command over each database: remembered or carried out, answered once, and nobody's fault kept apart."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from handlers import Context, Participant
from handlers.answering import reply_id
from handlers.facts import CommandAnswered, CommandDropped
from messages import Command, Event, upcast
from messages.errors import CommitUnknown, DatabaseAway
from outbox.participant_store import ParticipantStore
from storage.database import ChangedMeanwhile
from tests.handlers.desk import Desk, again, asked, undo_of
from tests.handlers.house import tally
from tests.storage.databases import ASYNCPG, PSYCOPG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from outbox.unit import SqlStorage, SqlUnit
    from tests.storage.databases import Counter


class Paint(Command, name="paint.Paint"):
    wall: str


class Painted(Event, name="paint.Painted"):
    wall: str
    coats: int


class TooWet(Event, name="paint.TooWet"):
    wall: str


class NoSuchWall(Event, name="paint.NoSuchWall"):
    wall: str


class Strip(Command, name="paint.Strip"):
    wall: str


class Stripped(Event, name="paint.Stripped"):
    wall: str
    coats: int


class Notify(Command, name="paint.Notify"):
    wall: str


class Painters:
    """A participant whose handlers keep a table of coats and do what the test says meanwhile."""

    def __init__(self) -> None:
        self.calls = 0
        self.before: Any = None  # called before the database is touched
        self.after: Any = None  # called after
        self.contexts: list[Context] = []
        self.participant = participant = Participant("painters")

        @participant.setup
        async def tables(connection: AsyncConnection) -> None:
            await connection.execute(text("drop table if exists coat"))
            await connection.execute(text("create table coat (wall text not null, key text primary key)"))

        @participant.handles(transient=TooWet)
        async def paint(command: Paint, context: Context) -> Painted | TooWet | NoSuchWall:
            self.calls += 1
            self.contexts.append(context)
            if self.before is not None:
                await self.before(context)
            if command.wall == "none":
                return NoSuchWall(wall=command.wall)
            await self.coat(context, command.wall)
            answer = None if self.after is None else await self.after(context)
            return answer or Painted(wall=command.wall, coats=self.calls)

        @participant.handles
        async def strip(command: Strip, context: Context) -> Stripped:
            gone = await context.connection.execute(
                text("delete from coat where key = :key"), {"key": context.compensates}
            )
            return Stripped(wall=command.wall, coats=gone.rowcount)

        @participant.handles
        async def notify(command: Notify, context: Context) -> None:
            self.calls += 1
            await self.coat(context, command.wall)

    async def coat(self, context: Context, wall: str) -> None:
        await context.connection.execute(
            text("insert into coat (wall, key) values (:wall, :key)"), {"wall": wall, "key": context.idempotency_key}
        )


@asynccontextmanager
async def at_work(painters: Painters, storage: SqlStorage) -> AsyncIterator[Desk]:
    desk = await Desk(painters.participant, storage).open()
    try:
        yield desk
    finally:
        await desk.close()


@pytest.fixture
def painters() -> Painters:
    return Painters()


@pytest.fixture
async def desk(painters: Painters, storage: SqlStorage) -> AsyncIterator[Desk]:
    async with at_work(painters, storage) as desk:
        yield desk


async def coats(desk: Desk) -> int:
    return len(await desk.rows("select * from coat"))


PAINT = Paint(wall="north")
STRIP = Strip(wall="north")


async def test_a_command_is_carried_out_and_answered_to_whoever_asked(desk: Desk, painters: Painters) -> None:
    command = asked(PAINT)
    await desk.take(command)
    reply = await desk.reply()
    assert (reply.type, reply.body) == ("paint.Painted", b'{"wall":"north","coats":1}')
    assert reply.message_id == reply_id(command.message_id or "", "paint.Painted")
    assert reply.correlation_id == command.correlation_id
    assert reply.headers["causation-id"] == command.message_id
    assert await coats(desk) == 1
    assert await desk.effects() == {"s/1/do": "applied"}
    [context] = painters.contexts
    assert (context.idempotency_key, context.compensates) == ("s/1/do", None)
    assert (context.message_id, context.saga_id) == (command.message_id, command.correlation_id)


@pytest.mark.parametrize("database", [ASYNCPG, PSYCOPG], indirect=True)
async def test_a_command_costs_one_statement_before_its_handler_and_one_after(desk: Desk, counter: Counter) -> None:
    desk.relay.stop()  # whatever it does in between would be counted too
    counter.reset()
    await desk.take(asked(PAINT))
    before, after = [sql for sql in counter.statements if "coat" not in sql]
    assert "participant_message m" in before
    assert all(table in after for table in ("participant_message", "participant_effect", "outbox"))
    assert counter.commits == 1


async def test_a_command_that_names_nobody_is_answered_for_whoever_listens(desk: Desk) -> None:
    await desk.take(again(asked(PAINT), reply_to=None))
    reply = await desk.reply()
    assert (reply.type, reply.routing_key) == ("paint.Painted", "paint.Painted")


async def test_a_repeated_id_gets_the_same_bytes_and_nothing_is_done_again(desk: Desk, painters: Painters) -> None:
    command = asked(PAINT)
    await desk.take(command)
    first = await desk.reply()
    await desk.sent()
    await desk.take(command)
    assert await desk.reply() == first
    assert (painters.calls, await coats(desk)) == (1, 1)
    assert tally(desk.facts) == {"CommandAnswered": 1, "MessageDuplicated": 1}


async def test_a_new_id_with_an_applied_key_gets_the_stored_reply_under_an_id_of_its_own(
    desk: Desk, painters: Painters
) -> None:
    first, second = asked(PAINT), asked(PAINT)
    await desk.take(first, second, second)
    replies = [delivery.raw for delivery in await desk.replies(2)]
    assert [reply.body for reply in replies] == [b'{"wall":"north","coats":1}'] * 2
    assert [reply.headers["causation-id"] for reply in replies] == [first.message_id, second.message_id]
    assert replies[0].message_id != replies[1].message_id
    assert (painters.calls, await coats(desk)) == (1, 1)


async def test_a_definitive_failure_is_remembered_under_its_key_too(desk: Desk, painters: Painters) -> None:
    await desk.take(asked(Paint(wall="none")), asked(Paint(wall="none")))
    replies = await desk.replies(2)
    assert [delivery.raw.type for delivery in replies] == ["paint.NoSuchWall"] * 2
    assert painters.calls == 1


async def test_a_transient_reply_takes_the_work_back_and_the_next_attempt_is_carried_out(
    desk: Desk, painters: Painters
) -> None:
    async def too_wet(_context: Context) -> TooWet:
        return TooWet(wall="north")

    painters.after = too_wet
    first = asked(PAINT)
    await desk.take(first)
    assert (await desk.reply()).type == "paint.TooWet"
    assert (await coats(desk), await desk.effects()) == (0, {})
    painters.after = None
    await desk.sent()
    await desk.take(first)
    assert (await desk.reply()).type == "paint.TooWet"
    assert painters.calls == 1
    await desk.take(asked(PAINT))
    assert (await desk.reply()).type == "paint.Painted"
    assert (await coats(desk), await desk.effects()) == (1, {"s/1/do": "applied"})


async def test_an_undo_finds_its_effect_by_the_key_it_compensates(desk: Desk) -> None:
    await desk.take(asked(PAINT), undo_of(STRIP))
    assert [delivery.raw.type for delivery in await desk.replies(2)] == ["paint.Painted", "paint.Stripped"]
    assert await coats(desk) == 0
    assert await desk.effects() == {"s/1/do": "applied", "s/1/undo": "applied"}


async def test_an_undo_before_its_do_succeeds_and_the_do_is_dropped_without_a_reply(
    desk: Desk, painters: Painters
) -> None:
    undo, do = undo_of(STRIP), asked(PAINT)
    await desk.take(undo)
    assert (await desk.reply()).body == b'{"wall":"north","coats":0}'
    assert await desk.effects() == {"s/1/do": "tombstone", "s/1/undo": "applied"}
    await desk.take(do, do)
    await desk.sent()
    assert (painters.calls, await coats(desk)) == (0, 0)
    assert [fact for fact in desk.facts if isinstance(fact, CommandDropped)] == [
        CommandDropped(
            consumer="participant.painters",
            message_id=do.message_id or "",
            name="paint.Paint",
            saga_id=do.correlation_id,
        )
    ] * 2


async def test_copies_at_once_have_one_effect_and_one_reply(desk: Desk, painters: Painters) -> None:
    command = asked(PAINT)
    async with asyncio.timeout(30):
        await asyncio.gather(*(desk.answering.take(command) for _ in range(20)))
    bodies = {(await desk.reply()).body}
    assert (painters.calls, await coats(desk)) == (1, 1)
    assert bodies == {b'{"wall":"north","coats":1}'}
    assert tally(desk.facts)["MessageDuplicated"] == 19


async def test_whoever_comes_second_rolls_back_and_sends_what_the_first_one_stored(
    storage: SqlStorage,
) -> None:
    """Two processes with one command: the second one's handler runs while the first one commits."""
    command = asked(PAINT)
    first, second = Painters(), Painters()
    async with at_work(first, storage) as here, at_work(second, storage) as there:

        async def meanwhile(_context: Context) -> None:
            await here.take(command)

        second.before = meanwhile
        await _until_answered(there, command)
        assert (first.calls, second.calls) == (1, 1)
        assert await coats(here) == 1
        assert tally(there.facts) == {"MessageDuplicated": 1}
        assert [row.status for row in await here.rows("select * from participant_effect")] == ["applied"]
        assert await here.dead() == []


async def test_two_processes_say_not_now_with_one_voice(storage: SqlStorage) -> None:
    async def too_wet(_context: Context) -> TooWet:
        return TooWet(wall="north")

    command = asked(PAINT)
    first, second = Painters(), Painters()
    first.after = second.after = too_wet
    async with at_work(first, storage) as here, at_work(second, storage) as there:

        async def meanwhile(_context: Context) -> None:
            await here.take(command)

        second.before = meanwhile
        await _until_answered(there, command)
        assert (tally(here.facts), tally(there.facts)) == ({"CommandAnswered": 1}, {"MessageDuplicated": 1})
        assert await here.effects() == {}


async def test_a_do_that_was_undone_while_it_was_at_work_has_no_effect(storage: SqlStorage) -> None:
    first, second = Painters(), Painters()
    async with at_work(first, storage) as here, at_work(second, storage) as there:

        async def meanwhile(_context: Context) -> None:
            await here.take(undo_of(STRIP))

        second.before = meanwhile
        await _until_answered(there, asked(PAINT))
        assert (second.calls, await coats(there)) == (1, 0)
        assert tally(there.facts) == {"CommandDropped": 1}
        assert await here.effects() == {"s/1/do": "tombstone", "s/1/undo": "applied"}


async def test_an_undo_overtaken_by_its_do_is_carried_out_anew_and_finds_it(storage: SqlStorage) -> None:
    first, second = Painters(), Painters()

    async def here_first(_command: Command, _context: Context, proceed: Any) -> Any:  # noqa: ANN401
        if not first.calls:
            await here.take(asked(PAINT))
        return await proceed()

    late = Painters()
    late.participant = second.participant.around(here_first)
    async with at_work(first, storage) as here, at_work(late, storage) as there:
        undo = undo_of(STRIP)
        with pytest.raises(ChangedMeanwhile):
            await there.take(undo)
        await there.take(undo)
        assert await coats(here) == 0
        assert await here.effects() == {"s/1/do": "applied", "s/1/undo": "applied"}


async def test_commands_of_one_effect_wait_for_each_other_and_others_do_not(desk: Desk, painters: Painters) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(context: Context) -> None:
        if context.idempotency_key == "s/1/do":
            started.set()
            await go_on.wait()

    painters.before = wait
    async with asyncio.timeout(30):
        slow = asyncio.create_task(desk.answering.take(asked(PAINT)))
        await started.wait()
        undo = asyncio.create_task(desk.answering.take(undo_of(STRIP)))
        await desk.take(asked(PAINT, key="s/2/do"))
        assert (await desk.reply()).type == "paint.Painted"
        assert not undo.done()
        go_on.set()
        await asyncio.gather(slow, undo)
    assert [delivery.raw.type for delivery in await desk.replies(2)] == ["paint.Painted", "paint.Stripped"]
    assert await desk.effects() == {"s/1/do": "applied", "s/1/undo": "applied", "s/2/do": "applied"}


async def test_a_slow_handler_that_has_not_touched_the_database_holds_nothing(desk: Desk, painters: Painters) -> None:
    async def others(context: Context) -> None:
        painters.before = None
        for number in range(3):
            await desk.take(asked(PAINT, key=f"other/{number}/do"))

    painters.before = others
    await desk.take(asked(PAINT))
    assert len(await desk.replies(4)) == 4
    assert await coats(desk) == 4


async def test_an_id_that_was_used_for_another_body_is_dead_lettered(desk: Desk, painters: Painters) -> None:
    command = asked(PAINT)
    await desk.take(command)
    await desk.reply()
    await desk.take(again(command, body=b'{"wall":"south"}'))
    assert await desk.dead() == [(command.message_id, "id_conflict")]
    assert painters.calls == 1


async def test_a_handler_that_raises_leaves_nothing_and_the_next_copy_is_carried_out(
    desk: Desk, painters: Painters
) -> None:
    async def broken(_context: Context) -> None:
        raise LookupError("no brush")

    painters.after = broken
    command = asked(PAINT)
    await desk.take(command, command)
    assert (await coats(desk), await desk.effects()) == (0, {})
    assert await desk.dead() == [(command.message_id, "handler_raised")]
    [letter] = await desk.rows("select error, copies, name, consumer from v_dead_letter")
    assert letter.copies == 2
    assert "LookupError: no brush" in letter.error
    assert "paint (" in letter.error and "test_participant.py" in letter.error
    assert (letter.name, letter.consumer) == ("paint.Paint", "participant.painters")
    painters.after = None
    await desk.take(command)
    assert (await desk.reply()).type == "paint.Painted"


class MuteError(Exception):
    """It cannot say what is wrong."""

    def __str__(self) -> str:
        raise LookupError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SystemExit("enough"), "SystemExit: enough"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError("by myself"), "CancelledError: by myself"),
        (BaseExceptionGroup("several", [SystemExit(1)]), "BaseExceptionGroup: several"),
        (MuteError(), "MuteError (no text: its __str__ raised LookupError)"),
        (ValueError("no\x00good"), r"ValueError: no\x00good"),
        (ValueError("x" * 5_000_000), "ValueError: xxx"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_whatever_a_handler_raises_is_its_own_failure(
    desk: Desk, painters: Painters, error: BaseException, told: str
) -> None:
    async def fail(_context: Context) -> None:
        raise error

    painters.after = fail
    command = asked(PAINT)
    await desk.take(command)
    [letter] = await desk.rows("select reason, error from v_dead_letter")
    assert letter.reason == "handler_raised"
    assert told in letter.error
    assert len(letter.error) < 3_000
    assert (await coats(desk), await desk.effects()) == (0, {})
    painters.after = None
    await desk.take(command)
    assert (await desk.reply()).type == "paint.Painted"


async def test_a_command_whose_work_is_cancelled_from_outside_is_nobodys_failure(
    desk: Desk, painters: Painters
) -> None:
    begun = asyncio.Event()

    async def wait(_context: Context) -> None:
        begun.set()
        await asyncio.Event().wait()

    painters.after = wait
    taking = asyncio.create_task(desk.answering.take(asked(PAINT)))
    async with asyncio.timeout(30):
        await begun.wait()
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
    assert (await desk.dead(), await coats(desk)) == ([], 0)


async def test_a_handler_that_breaks_or_ends_its_transaction_is_to_blame(desk: Desk, painters: Painters) -> None:
    async def swallow(context: Context) -> None:
        with pytest.raises(IntegrityError):
            await painters.coat(context, "again")
        if not desk.storage.database.postgresql:
            raise LookupError("SQLite goes on after an error, so the test says it")

    async def commit(context: Context) -> None:
        await context.connection.commit()

    for fault in (swallow, commit):
        painters.after = fault
        await desk.take(asked(PAINT))
    assert [reason for _, reason in await desk.dead()] == ["handler_raised"] * 2
    assert (await coats(desk), await desk.effects()) == (0, {})


async def test_a_reply_that_was_not_declared_is_the_handlers_fault(desk: Desk, painters: Painters) -> None:
    async def other(_context: Context) -> Stripped:
        return Stripped(wall="north", coats=0)

    painters.after = other
    await desk.take(asked(PAINT))
    [letter] = await desk.rows("select error from v_dead_letter")
    assert "none of the replies" in letter.error
    assert await coats(desk) == 0


async def test_a_handler_has_its_time_and_no_more(painters: Painters, storage: SqlStorage) -> None:
    async def for_ever(_context: Context) -> None:
        await asyncio.Event().wait()

    painters.before = for_ever
    desk = await Desk(painters.participant, storage, patience=0.01).open()
    await desk.take(asked(PAINT))
    [letter] = await desk.rows("select reason, error from v_dead_letter")
    await desk.close()
    assert letter.reason == "handler_raised"
    assert "0.01 s" in letter.error


async def test_a_lost_connection_is_nobodys_fault(painters: Painters, postgresql: Any) -> None:  # noqa: ANN401
    from outbox.unit import SqlStorage

    async def cut(context: Context) -> None:
        pid = (await context.connection.execute(text("select pg_backend_pid()"))).scalar_one()
        async with postgresql.write() as session:
            await session.connection.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})

    async def cut_and_blame_the_network(context: Context) -> None:
        await cut(context)
        raise ConnectionResetError("as a driver may say it")

    async def cut_and_use(context: Context) -> None:
        await cut(context)
        await painters.coat(context, "cut")

    async with at_work(painters, SqlStorage(postgresql)) as desk:
        for fault in (cut, cut_and_blame_the_network, cut_and_use):
            painters.after = fault
            with pytest.raises(DatabaseAway):
                await desk.take(asked(PAINT))
        assert await desk.dead() == []
        painters.after = None
        await desk.take(asked(PAINT))
        assert (await desk.reply()).type == "paint.Painted"


class LossyStore(ParticipantStore):
    """A real store that loses the answer to its next commit: it happened and nobody heard of it, or it did not."""

    committed: bool | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlUnit]:
        committed, self.committed = self.committed, None
        unknown = CommitUnknown("the connection was lost while COMMIT was under way")
        async with super().transaction() as unit:
            yield unit
            if committed is False:
                raise unknown
        if committed is True:
            raise unknown


@pytest.mark.parametrize("committed", [True, False])
async def test_a_commit_that_nobody_knows_about_is_asked_after(
    desk: Desk, painters: Painters, storage: SqlStorage, committed: bool
) -> None:
    store = desk.answering.store = LossyStore(storage, "painters")
    store.committed = committed
    command = asked(PAINT)
    with pytest.raises(CommitUnknown):
        await desk.take(command)
    assert await coats(desk) == int(committed)
    await desk.take(command)
    assert painters.calls == 2 - int(committed)
    assert (await coats(desk), await desk.effects()) == (1, {"s/1/do": "applied"})
    assert [row.name for row in await desk.rows("select name from outbox")] == ["paint.Painted"]


async def test_a_command_without_a_key_is_applied_once_by_its_id(desk: Desk, painters: Painters) -> None:
    command = asked(PAINT, key=None)
    await desk.take(command, command)
    assert (painters.calls, painters.contexts[0].idempotency_key) == (1, command.message_id)


async def test_a_command_that_nobody_waits_for_is_applied_once_and_not_answered(desk: Desk, painters: Painters) -> None:
    command = asked(Notify(wall="west"))
    await desk.take(command, command, asked(Notify(wall="west")))
    await desk.sent()
    assert (painters.calls, await coats(desk)) == (1, 1)
    assert tally(desk.facts) == {"CommandAnswered": 1, "MessageDuplicated": 2}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"message_id": None}, "malformed"),
        ({"body": b"[]"}, "malformed"),
        ({"body": b"{}"}, "malformed"),
        ({"body": b" " * (1024 * 1024 + 1)}, "oversize"),
        ({"type": "paint.Unknown"}, "unknown_message"),
        ({"headers": {"schema-version": 2}}, "unknown_message"),
    ],
)
async def test_what_cannot_be_read_is_dead_lettered(
    desk: Desk, painters: Painters, changes: dict[str, object], reason: str
) -> None:
    await desk.take(again(asked(PAINT), **changes))
    assert [reason for _, reason in await desk.dead()] == [reason]
    assert painters.calls == 0


async def test_a_wrapper_may_delay_watch_and_drop(storage: SqlStorage, painters: Painters) -> None:
    seen: list[str] = []

    async def around(command: Command, context: Context, proceed: Any) -> Event | None:  # noqa: ANN401
        seen.append(command.message_name)
        reply: Event | None = await proceed()
        return None if context.idempotency_key.startswith("silent") else reply

    wrapped = Painters()
    wrapped.participant = painters.participant.around(around)
    async with at_work(wrapped, storage) as desk:
        await desk.take(asked(PAINT), asked(PAINT, key="silent/1/do"))
        assert (await desk.reply()).type == "paint.Painted"
        await desk.sent()
        assert await coats(desk) == 2
        assert [fact.reply for fact in desk.facts if isinstance(fact, CommandAnswered)] == ["paint.Painted", None]
    assert seen == ["paint.Paint", "paint.Paint"]


async def _until_answered(desk: Desk, command: Any) -> None:  # noqa: ANN401
    """As the loop does it: what another process changed meanwhile can be read at once."""
    try:
        await desk.take(command)
    except ChangedMeanwhile:
        await desk.take(command)


class Paper(Command, name="paint.Paper", version=3):
    wall: str
    pattern: str

    @upcast(2)
    @classmethod
    def plain(cls, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "pattern": "plain"}


async def test_an_older_command_goes_to_the_handler_of_the_newer_one_that_reads_it(storage: SqlStorage) -> None:
    participant, seen = Participant("paperers"), list[str]()

    @participant.handles
    async def paper(command: Paper) -> None:
        seen.append(command.pattern)

    desk = await Desk(participant, storage).open()
    old = asked(Paper(wall="north", pattern="striped"))
    older = asked(Paper(wall="south", pattern="striped"))
    await desk.take(
        replace(old, body=b'{"wall": "north"}', headers={**old.headers, "schema-version": 2}),
        replace(older, headers={**older.headers, "schema-version": 1}),
    )
    assert seen == ["plain"]
    assert await desk.dead() == [(older.message_id, "unknown_message")]
    await desk.close()
    assert [participant.handler_of("paint.Paper", version) is not None for version in (1, 2, 3, 4)] == [
        False,
        True,
        True,
        False,
    ]
