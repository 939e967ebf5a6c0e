"""Directed runs: one fault, one or two orders, as short as it gets. Each returns what is wrong, in sentences.

On the sound product that is nothing. Every run is what one of the mutants does not survive.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from tests.crash import kinsman, loads, rooms
from tests.crash.checker import stalls
from tests.crash.driver import at_rest_or_stuck, order_body, start_id
from tests.crash.forking import Program
from tests.crash.laboratory import LOCKING
from tests.crash.moved import instances, miscounted, out_of_place, torn
from tests.crash.process import Child
from tests.crash.proxy.faults import cut, drop, hold, kill
from tests.crash.script import HARBOUR, MOVERS, REFORM
from tests.crash.tallyman import cargoes, judged
from tests.crash.test_moving import AFTER, BEFORE, MOMENTS, at_work, finished, half_way, killed_at
from tests.crash.witnesses import PLOTS, Court
from tests.services.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tests.crash.laboratory import Laboratory, Wires
    from tests.crash.views import Picture
    from tests.services.private import PrivatePostgres

DRAIN = 0.5  # seconds that a process which is told to stop may take
AN_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A laboratory, and how long nothing may change in it before the run is judged as it stands.

    `postgres` is the server below it where that is one to be killed.
    """

    laboratory: Laboratory
    quiet: float
    postgres: PrivatePostgres | None = None

    async def verdict(self, starts: Mapping[str, str], ends: str) -> list[str]:
        """What is wrong at rest; `ends` is the status in which every order has to end."""
        allowed: dict[str, Collection[str]] = dict.fromkeys(starts, (ends,))
        return await self.laboratory.verdict(starts, allowed, quiet=self.quiet)

    async def seen(self, what: str, condition: Callable[[Picture], bool]) -> None:
        """Wait until the views show something.

        Raises:
            AssertionError: they do not, and the run has missed what it aims at.
        """

        async def shown() -> bool:
            return condition(await self.laboratory.look())

        await until_async(shown, timeout=60, what=what)


Run: TypeAlias = Callable[[Bench], Awaitable[list[str]]]


async def killed_before_the_commit(bench: Bench) -> list[str]:
    """The message comes again, and nothing of what was being decided has left the process."""
    lab = bench.laboratory
    wires = await lab.wires()
    victim = await lab.staffed("victim", wires, command=LOCKING)
    wires.at_commit("pg.c2s.COMMIT", kill(victim.pid))
    starts = await lab.place("o-1")
    await victim.killed()
    early = published_undecided(wires, await lab.look())
    await lab.sidecar("heir")
    return early + await bench.verdict(starts, "completed")


def published_undecided(wires: Wires, picture: Picture) -> list[str]:
    """What went out through these wires and was decided by nobody."""
    decided = {row.message_id for row in picture.history}
    published = {
        event.text("message_id"): event.text("type") for event in wires.amqp.log if event.name == "amqp.c2s.publish"
    }
    return [
        f"{name} {message_id} was published before it was committed"
        for message_id, name in published.items()
        if message_id not in decided
    ]


async def killed_before_the_acknowledgement(bench: Bench) -> list[str]:
    """What was committed comes again, and changes nothing."""
    lab = bench.laboratory
    wires = await lab.wires()
    victim = await lab.staffed("victim", wires)
    wires.amqp.rule("amqp.c2s.ack", kill(victim.pid))
    starts = await lab.place("o-1")
    await victim.killed()
    await lab.sidecar("heir", command=LOCKING)
    return await bench.verdict(starts, "completed")


async def cut_off_at_a_publication(bench: Bench) -> list[str]:
    """The command never reached the broker, and goes out again."""
    lab = bench.laboratory
    wires = await lab.wires()
    await lab.staffed("sidecar", wires)
    lost = wires.amqp.rule("amqp.c2s.publish", cut())
    starts = await lab.place("o-1")
    await lost.has_fired()
    return await bench.verdict(starts, "completed")


async def participants_come_late(bench: Bench) -> list[str]:
    """A command that no queue takes is published until one does."""
    lab = bench.laboratory
    await lab.sidecar("sidecar")
    starts = await lab.place("o-1")

    def returned_twice_or_gone(picture: Picture) -> bool:
        return bool(picture.sagas) and all(row.attempts >= 2 for row in picture.outbox)

    await bench.seen("two returns of the command, or its end", returned_twice_or_gone)
    await lab.participants()
    return await bench.verdict(starts, "completed")


async def refused_and_contradicted(bench: Bench) -> list[str]:
    """No fault at all but those of the participants."""
    lab = bench.laboratory
    await lab.staffed("sidecar")
    starts = await lab.place("refused~warehouse=fail", "contradicted~warehouse=contradict")
    return await bench.verdict(starts, "compensated")


async def one_clock_is_wrong(bench: Bench) -> list[str]:
    """Two hosts an hour apart share the work; the database's clock is the only one that counts."""
    lab = bench.laboratory
    skewed = Program("tests.crash.launcher", ["--locking", "--skew", str(AN_HOUR)])
    await lab.sidecar("right", command=LOCKING, SWEEP="0.1")
    await lab.staffed("ahead", command=skewed, SWEEP="0.1")
    starts = await lab.place(*(f"o-{number}~stock=late:0.5" for number in range(4)))
    return await bench.verdict(starts, "completed")


async def the_first_at_the_door_commits_last(bench: Bench) -> list[str]:
    """Two services place orders in their own transactions; the one that began first takes its time."""
    lab = bench.laboratory
    await lab.staffed("sidecar", SWEEP="0.1")
    publish = f"select {lab.setup.namespace}.publish('ordering.OrderPlaced', $1, $2)"
    slow, quick = [await asyncpg.connect(lab.setup.database_url) for _ in range(2)]
    try:
        unfinished = slow.transaction()
        await unfinished.start()
        await slow.execute(publish, order_body("slow"), start_id("slow"))
        await quick.execute(publish, order_body("quick"), start_id("quick"))
        await bench.seen("the saga of the quick one", lambda picture: bool(picture.sagas))
        await unfinished.commit()
    finally:
        await slow.close()
        await quick.close()
    return await bench.verdict({order: start_id(order) for order in ("slow", "quick")}, "completed")


async def stopped_in_a_commit(bench: Bench) -> list[str]:
    """The commit never arrives, the process waits for its answer and is stopped: that is no commit."""
    lab = bench.laboratory
    wires = await lab.wires()
    sidecar = await lab.staffed("stopped", wires, command=LOCKING, DRAIN_TIMEOUT=str(DRAIN))
    lost = wires.at_commit("pg.c2s.COMMIT", drop())
    starts = await lab.place("o-1")
    await lost.has_fired()
    await sidecar.stop()
    await lab.sidecar("heir")
    return await bench.verdict(starts, "completed")


def happened(*kinds: str) -> Callable[[Picture], bool]:
    """Whether a history says one of these."""
    return lambda picture: any(row.kind in kinds for row in picture.history)


async def the_database_dies_in_a_commit(bench: Bench) -> list[str]:
    """The server is killed before the commit reached its disk, and gives the transaction's number to another one."""
    lab, server = bench.laboratory, bench.postgres
    assert server is not None, "this run kills a server, which has to be its own"
    wires = await lab.wires()
    await lab.staffed("sidecar", wires, command=LOCKING)
    held = wires.at_commit("pg.c2s.COMMIT", hold(asyncio.Event()))
    starts = await lab.place("o-1")
    await held.has_fired()
    wires.pg.black_hole()
    lost = await asyncio.to_thread(reuse_numbers, server)
    wires.pg.heal()
    status = await asyncio.to_thread(server.psql, f"select pg_xact_status('{lost}')")
    assert status == [("committed",)], f"the number {lost} was not given again: {status}"
    return await bench.verdict(starts, "completed")


def reuse_numbers(server: PrivatePostgres) -> str:
    """Kill the server, start it again, and commit other transactions until they have taken the lost one's number."""
    [(lost,)] = server.psql("select backend_xid::text from pg_stat_activity where backend_xid is not null")
    server.kill()
    server.start()
    while int(str(server.psql("select pg_current_xact_id()::text")[0][0])) < int(str(lost)):
        pass
    return str(lost)


async def the_deadline_strikes_before_the_confirm(bench: Bench) -> list[str]:
    """A command that may have arrived cannot be taken back, whatever has to be undone."""
    lab = bench.laboratory
    wires = await lab.wires()
    hurried = Program("tests.crash.launcher", ["--policies", json.dumps({"deadline": 1, "calls": {}})])
    await lab.staffed("sidecar", wires, command=hurried, SWEEP="0.1")
    confirming = asyncio.Event()
    wires.amqp.rule("amqp.s2c.ack", hold(confirming))
    starts = await lab.place("o-1~stock=late:2.5")
    await bench.seen("the deadline", happened("compensation_started"))
    confirming.set()
    return await bench.verdict(starts, "compensated")


async def the_answer_is_still_in_the_queue(bench: Bench) -> list[str]:
    """The last timeout falls due while the answer is on its way: it is the answer that counts."""
    lab = bench.laboratory
    wires = await lab.wires()
    hurried = Program("tests.crash.launcher", ["--policies", json.dumps({"calls": {"label": [1, 1]}})])
    await lab.staffed("sidecar", wires, command=hurried, SWEEP="0.1")
    arriving = asyncio.Event()
    wires.amqp.rule(
        "amqp.s2c.deliver",
        hold(arriving),
        when=lambda event: event.text("type") == "warehouse.ShippingLabelCreated",
    )
    starts = await lab.place("o-1")
    await bench.seen("the last timeout", happened("timer_fired", "step_timed_out"))
    arriving.set()
    return await bench.verdict(starts, "completed")


async def every_letter_is_replayed_twice(bench: Bench) -> list[str]:
    """The saga's class was wrong and is mended: its letter is applied once, however often it is replayed."""
    lab = bench.laboratory
    pattern = lab.setup.folder / "broken"
    pattern.write_text("o-1")
    await lab.staffed("sidecar", command=Program("tests.crash.launcher", ["--broken", str(pattern)]), SWEEP="0.1")
    starts = await lab.place("o-1")
    await bench.seen("the dead letter", lambda picture: bool(picture.dead))
    pattern.unlink()
    replaying = Program("tests.crash.replaying", ["--times", "2"])
    async with await Child.start("replay", replaying, folder=lab.setup.folder, env=lab.setup.environment()) as child:
        assert await child.ended() == 0, child.tail()
    return await bench.verdict(starts, "completed")


async def a_list_turns_back(bench: Bench) -> list[str]:
    """No fault at all but those of the participants: the captain does not sail, and all items are undone."""
    lab = bench.laboratory
    await lab.sidecar("sidecar", MODULES="tests.crash.freight", SWEEP="0.1")
    await lab.participants(names=tuple(HARBOUR))
    starts = await lab.place(loads.order("becalmed~captain=fail", 1))
    picture = await at_rest_or_stuck(lab.look, starts, lab.setup.ledger, quiet=bench.quiet)
    found = await cargoes(lab.setup.database_url, lab.setup.namespace)
    return [*stalls(picture), *judged(picture, starts, found)]


async def a_parent_turns_back(bench: Bench) -> list[str]:
    """One child has failed, and another one that is under way is told to stop."""
    lab = bench.laboratory
    await lab.sidecar("sidecar", MODULES="tests.crash.removal", SWEEP="0.1")
    await lab.participants(names=tuple(MOVERS))
    starts = await lab.place(*rooms.orders(1, ["stuck"]))
    picture = await at_rest_or_stuck(lab.look, starts, lab.setup.ledger, quiet=bench.quiet)
    found = await kinsman.parents(lab.setup.database_url, lab.setup.namespace)
    return [*stalls(picture), *kinsman.judged(picture, starts, found)]


async def moved_by_the_second_mover(bench: Bench) -> list[str]:
    """Cases that wait for a vote are moved to the next version, by one who is killed at it and by another one."""
    lab = bench.laboratory
    old = await at_work(lab, "old", BEFORE)
    await lab.participants(names=tuple(REFORM))
    async with Court(lab.setup.broker_url, lab.setup.namespace) as court:
        starts, _ = await court.hear({f"half-{number}": PLOTS["half"] for number in range(2)})
    await half_way(lab, starts, waits=2)
    await old.kill()
    await at_work(lab, "new", AFTER)
    await killed_at(lab, "victim", MOMENTS["commit never sent"])
    await finished(lab)
    picture = await at_rest_or_stuck(lab.look, starts, lab.setup.ledger, quiet=bench.quiet)
    found = await instances(lab.setup.database_url, lab.setup.namespace)
    return [*stalls(picture), *torn(found, starts), *miscounted(found, picture), *out_of_place(found, picture)]
