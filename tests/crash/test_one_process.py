"""`kill -9` at each arrow of a batch's path in one process, on SQLite: the next process finishes what was begun.

Orchestrator, broker and participants die together, at a point named in the launcher; what runs after them is the same
without a point. The dead process is judged by the public views, by what its participants wrote down in the transactions
of their effects, and by the participants' own tables.
"""

from __future__ import annotations

import random
import resource
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.crash.checker import Expected, violations
from tests.crash.driver import BOUND, ORDERING, Setup, Sidecar, at_rest, finished, order_body, start_id
from tests.crash.forking import Program
from tests.crash.ledger import Effect
from tests.crash.views import Picture, read_sqlite

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GOOD = ("good-1", "good-2", "busy-1")
BAD = ("declined-1", "label-refused-1")
QUIET = "quiet~warehouse=silent"
LEVEL = 1_000_000  # of every article, before anybody has ordered
EFFECTS = """
    create table crash_effect (
        participant text not null, at text not null, purpose text not null, order_id text not null,
        idempotency_key text not null, compensates text not null, message_id text not null)
"""


def empty(folder: Path) -> Setup:
    """A folder without a database."""
    return Setup(
        folder=folder,
        database_url=f"sqlite:///{folder / 'shop.db'}",
        settings={"MODULES": f"{ORDERING},tests.crash.auditing", "SWEEP": "0.1"},
    )


async def shop(folder: Path, *orders: str) -> Setup:
    """A database in which the orders are placed and nobody has taken them yet."""
    setup = empty(folder)
    await finished("migrate", setup, "migrate")
    with closing(sqlite3.connect(folder / "shop.db")) as db:
        db.execute(EFFECTS)
    for each in orders:
        words = ("publish", "ordering.OrderPlaced", order_body(each), "--message-id", start_id(each))
        await finished("publish", setup, *words)
    return setup


SOAK = pytest.mark.soak
"""For points that leave in the file what another one leaves: what the broker in the process knew dies with it."""


@pytest.fixture(scope="module")
async def placed(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """A database with every order placed, to be copied."""
    return await shop(tmp_path_factory.mktemp("placed"), *GOOD, *BAD)


def copied(setup: Setup, folder: Path) -> Setup:
    """The same database in another folder."""
    shutil.copy(setup.folder / "shop.db", folder / "shop.db")
    return replace(setup, folder=folder, database_url=f"sqlite:///{folder / 'shop.db'}")


async def launched(setup: Setup, name: str, *words: str) -> Sidecar:
    """A process of the launcher, its participants with a ledger."""
    command = Program("tests.crash.launcher", [*words, "--ledger", str(setup.folder)])
    return await Sidecar.start(setup, name, command=command)


def read(setup: Setup) -> Picture:
    """The views, the ledgers of arrivals, and the effects that were committed with the participants' work."""
    picture = read_sqlite(setup.folder / "shop.db", setup.ledger)
    rows = query(setup, "select * from crash_effect order by rowid")
    return replace(picture, effects=[Effect(**{**dict(row), "at": int(row["at"])}) for row in rows])


def query(setup: Setup, statement: str, *parameters: str) -> list[sqlite3.Row]:
    """Rows of the database, read from outside."""
    with closing(sqlite3.connect(f"file:{setup.folder / 'shop.db'}?mode=ro", uri=True, timeout=30)) as db:
        db.row_factory = sqlite3.Row
        return db.execute(statement, parameters).fetchall()


def of_type(picture: Picture, saga_type: str) -> Picture:
    """The part of it that concerns one saga type."""
    sagas = [saga for saga in picture.sagas if saga.saga_type == saga_type]
    ids = {saga.saga_id for saga in sagas}
    return replace(
        picture,
        sagas=sagas,
        history=[row for row in picture.history if row.saga_id in ids],
        inbox=[row for row in picture.inbox if row.consumer == saga_type],
        arrivals=picture.arrivals if saga_type == "PlaceOrder" else (),
        effects=picture.effects if saga_type == "PlaceOrder" else (),
    )


async def judged(setup: Setup, orders: Sequence[str], failing: Sequence[str]) -> None:
    """Wait for rest; then nothing may be wrong, with either saga, or in the participants' own tables."""

    async def look() -> Picture:
        return read(setup)

    picture = await at_rest(look, orders, setup.ledger)
    starts = {each: start_id(each) for each in orders}
    ends = {each: {"compensated"} if each in failing else {"completed"} for each in orders}
    assert violations(of_type(picture, "PlaceOrder"), Expected(starts=starts, allowed=ends)) == []
    audited = Expected(
        starts=starts, saga_type="AuditOrder", participants=(), allowed={e: {"completed"} for e in orders}
    )
    assert violations(of_type(picture, "AuditOrder"), audited) == []
    for each in orders:
        assert own_tables(setup, each) == ((0, LEVEL, 0, 0) if each in failing else (1, LEVEL - 2, 1, 1)), each


def own_tables(setup: Setup, order_id: str) -> tuple[int, ...]:
    """What the participants' tables hold of an order: reservations, articles left, payments taken, labels valid."""
    statements = (
        "select count(*) from stock_reservation where order_id = ?",
        "select on_hand from stock_level where sku = 'book-of-' || ?",
        "select count(*) from payment where order_id = ? and status = 'taken'",
        "select count(*) from shipping_label where order_id = ? and status = 'created'",
    )
    return tuple(int(query(setup, statement, order_id)[0][0]) for statement in statements)


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        pytest.param("start: publish", 1, id="placed, not handed over"),
        pytest.param("start: published", 1, id="handed over, not received", marks=SOAK),
        pytest.param("consumer.PlaceOrder.receive: received", 1, id="received, not begun"),
        pytest.param("consumer.PlaceOrder.batch: inbox written", 1, id="inside the transaction", marks=SOAK),
        pytest.param("consumer.PlaceOrder.batch: inbox written", 4, id="inside the transaction of replies"),
        pytest.param("consumer.PlaceOrder.batch: commit", 1, id="before the commit"),
        pytest.param("consumer.PlaceOrder.batch: committed", 2, id="committed, answer not seen"),
        pytest.param("consumer.PlaceOrder.batch: publish", 1, id="committed, not published", marks=SOAK),
        pytest.param("consumer.PlaceOrder.batch: published", 3, id="published, not confirmed", marks=SOAK),
        pytest.param("consumer.PlaceOrder.batch: settle", 2, id="committed, not acknowledged"),
        pytest.param("consumer.PlaceOrder.batch: settled", 2, id="acknowledged, not confirmed", marks=SOAK),
        pytest.param("relay.outcomes: confirmed", 3, id="confirmed, not noted", marks=SOAK),
        pytest.param("relay: commit", 1, id="confirmed, not recorded"),
        pytest.param("relay: committed", 1, id="recorded, answer not seen"),
        pytest.param("participant.payment.command: commit", 2, id="effect not committed"),
        pytest.param("participant.payment.command: committed", 3, id="effect committed, reply not published"),
        pytest.param("participant.warehouse.command: published", 1, id="reply published, command not acknowledged"),
        pytest.param("participant.stock.command: settled", 6, id="command acknowledged"),
    ],
)
async def test_a_killed_process_loses_nothing_and_does_nothing_twice(
    placed: Setup, tmp_path: Path, point: str, nth: int
) -> None:
    setup = copied(placed, tmp_path)
    async with await launched(setup, "victim", "--at", point, "--nth", str(nth)) as victim:
        await victim.killed()
    async with await launched(setup, "heir") as heir:
        await judged(setup, (*GOOD, *BAD), BAD)
        assert await heir.stop() == 0


async def test_killed_again_and_again_at_any_moment_it_still_finishes(placed: Setup, tmp_path: Path) -> None:
    """From outside, so at no point of anybody's choice."""
    setup, seed = copied(placed, tmp_path), random.randrange(1 << 32)
    print(f"seed {seed}")
    dice, behind = random.Random(seed), 0
    for number in range(4):
        behind += dice.randint(1, 12)
        async with await launched(setup, f"victim-{number}") as victim:
            await victim.child.until(partial(_has_history, setup, behind), f"{behind} rows of history", BOUND)
            await victim.kill()
    async with await launched(setup, "heir") as heir:
        await judged(setup, (*GOOD, *BAD), BAD)
        assert await heir.stop() == 0


async def _has_history(setup: Setup, rows: int) -> bool:
    return int(query(setup, "select count(*) from v_saga_event")[0][0]) >= rows


async def test_a_file_that_cannot_grow_is_trouble_until_it_can(placed: Setup, tmp_path: Path) -> None:
    """The limit on the size of files stands for a full disk: it needs no rights, and can be lifted again."""
    setup = copied(placed, tmp_path)
    async with await launched(setup, "sidecar") as sidecar:
        await sidecar.child.until(partial(_has_history, setup, 3), "begun", BOUND)
        full = (tmp_path / "shop.db-wal").stat().st_size  # far longer than the log of the process, which goes on
        without = resource.prlimit(sidecar.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
        await sidecar.child.says("disk I/O error")
        resource.prlimit(sidecar.pid, resource.RLIMIT_FSIZE, without)
        await judged(setup, (*GOOD, *BAD), BAD)
        assert await sidecar.stop() == 0


async def test_a_first_start_that_is_killed_while_it_makes_the_tables_leaves_a_start_to_the_next(
    tmp_path: Path,
) -> None:
    setup = empty(tmp_path)
    async with await launched(setup, "victim", "--at", "start: commit") as victim:
        await victim.killed()
    async with await launched(setup, "heir") as heir:
        await heir.ready()
        assert query(setup, "select count(*) from v_saga")[0][0] == 0
        assert await heir.stop() == 0


@pytest.mark.parametrize(("first", "second"), [("PlaceOrder", "AuditOrder"), ("AuditOrder", "PlaceOrder")])
async def test_of_two_consumers_the_one_that_had_not_committed_still_gets_the_message(
    placed: Setup, tmp_path: Path, first: str, second: str
) -> None:
    setup = copied(placed, tmp_path)
    words = ("--at", f"consumer.{first}.batch: committed", "--slow", f"consumer.{second}.receive")
    async with await launched(setup, "victim", *words) as victim:
        await victim.killed()
    taken = {saga.saga_type for saga in read(setup).sagas}
    async with await launched(setup, "heir") as heir:
        await judged(setup, (*GOOD, *BAD), BAD)
        assert await heir.stop() == 0
    assert taken == {first}, f"the kill came when {second} had committed too, or nobody"


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        pytest.param("timers: commit", 1, id="resend not committed"),
        pytest.param("timers: committed", 1, id="resend committed", marks=SOAK),
        pytest.param("timers: commit", 2, id="last timeout not committed", marks=SOAK),
        pytest.param("timers: committed", 2, id="last timeout committed"),
    ],
)
async def test_a_timer_has_one_effect_whenever_the_process_dies(tmp_path: Path, point: str, nth: int) -> None:
    setup = await shop(tmp_path, QUIET)
    async with await launched(setup, "victim", "--hurried", "--at", point, "--nth", str(nth)) as victim:
        await victim.killed()
    async with await launched(setup, "heir", "--hurried") as heir:
        await judged(setup, (QUIET,), (QUIET,))
        assert await heir.stop() == 0
    kinds = [row.kind for row in of_type(read(setup), "PlaceOrder").history]
    assert kinds.count("command_resent") == 1
    assert kinds.count("step_timed_out") == 1
