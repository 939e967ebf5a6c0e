"""Lets faults loose on sidecars at work, several at once: one after the other on each of their wires.

Each fault is aimed at a window of the work, as a wire event, and counts only when that event was seen: what was missed
is remembered, and a run with anything missed proves nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TYPE_CHECKING

import asyncpg

from tests.crash.laboratory import decides
from tests.crash.nemesis.customers import AWAY
from tests.crash.nemesis.deeds import REFUSALS, Kind, dealt
from tests.crash.proxy.amqp import forced_close
from tests.crash.proxy.faults import black_hole, call, cut, delay, drop, kill, refuse, say, stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.crash.nemesis.deeds import Deed
    from tests.crash.nemesis.post import Crew, Post
    from tests.crash.proxy.faults import Action
    from tests.crash.proxy.rules import Rule

AIM = 30.0  # seconds until a window is taken for missed
SPARED = 4  # so many deeds of others come on one at the participants
TERMINATE = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and application_name <> 'judge' and pid % 2 = $1
"""


@dataclass(slots=True, kw_only=True)
class Nemesis:
    """What it `hit` is counted by deed; what it aimed at and `missed` is listed."""

    seed: int
    posts: Sequence[Post]
    crew: Crew
    database_url: str  # past any proxy
    pauses: tuple[float, float]  # seconds between two faults on one wire, at least and at most
    longest: float  # seconds that a fault lasts at most
    hit: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    _deeds: Mapping[tuple[str, str], Iterator[Deed]] = field(init=False)
    _errands: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        lanes = [(post.name, server) for post in self.posts for server in ("pg", "amqp")]
        self._deeds = dealt(self.seed, lanes, self.longest)

    @property
    def kinds(self) -> Counter[str]:
        """How often each kind of fault struck."""
        kinds: Counter[str] = Counter()
        for deed, times in self.hit.items():
            kinds[deed.partition(" at ")[0]] += times
        return kinds

    async def rage(self, rounds: int | None = None) -> None:
        """Do so many deeds on every wire, or go on until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            lanes.create_task(self._at_the_crew(rounds))
            for post in self.posts:
                for server in ("pg", "amqp"):
                    lanes.create_task(self._lane(post, server, islice(self._deeds[post.name, server], rounds)))

    async def heal(self) -> None:
        """End every fault and wait until all sidecars are ready.

        Raises:
            ChildError: one has ended, or is not ready in time.
        """
        async with asyncio.TaskGroup() as healing:
            healing.create_task(self.crew.healed())
            for post in self.posts:
                healing.create_task(post.healed())

    async def _at_the_crew(self, rounds: int | None) -> None:
        """Kill the participants, at any time, a fraction as often as anything else happens."""
        dice = random.Random(f"{self.seed}/crew")
        for _ in count() if rounds is None else range(rounds // SPARED):
            await asyncio.sleep(SPARED * dice.uniform(*self.pauses))
            await self.crew.again()
            self.hit["participants killed"] += 1

    async def _lane(self, post: Post, server: str, deeds: Iterator[Deed]) -> None:
        dice = random.Random(f"{self.seed}/{post.name}/{server}")
        for deed in deeds:
            await asyncio.sleep(dice.uniform(*self.pauses))
            async with post.halting if deed.kind in (Kind.KILL, Kind.HALT) else nullcontext():
                await self._do(post, server, deed, dice)

    async def _do(self, post: Post, server: str, deed: Deed, dice: random.Random) -> None:
        proxy = post.proxy(server)
        try:
            await self._aimed(post, server, deed, dice).has_fired(timeout=AIM)
        except TimeoutError:
            self.missed.append(f"{post.name}: {deed}")
        else:
            self.hit[str(deed)] += 1
            await self._aftermath(post, deed)
        finally:
            proxy.heal()
            proxy.forget()

    def _aimed(self, post: Post, server: str, deed: Deed, dice: random.Random) -> Rule:
        proxy, action = post.proxy(server), self._action(post, server, deed, dice)
        if deed.window.endswith(".COMMIT"):
            return post.wires.at_save(deed.window.removesuffix(".COMMIT"), action)
        times = {Kind.SLOW: None, Kind.FAIL: 3, Kind.LOSE_CONFIRMS: 3}.get(deed.kind, 1)
        when = decides if deed.window == "pg.c2s.WITH" and deed.kind is not Kind.SLOW else None
        return proxy.rule(deed.window, action, times=times, when=when)

    def _action(self, post: Post, server: str, deed: Deed, dice: random.Random) -> Action:
        proxy = post.proxy(server)
        match deed.kind:
            case Kind.KILL:
                return kill(lambda: post.pid)
            case Kind.HALT:
                return stop(lambda: post.pid)
            case Kind.CUT:
                return cut()
            case Kind.BLACK_HOLE:
                return black_hole()
            case Kind.AWAY:
                return call(lambda _: proxy.refuse())
            case Kind.SLOW:
                return delay(round(dice.uniform(0.01, 0.3), 2))
            case Kind.FAIL:
                return refuse(dice.choice(REFUSALS))
            case Kind.TERMINATE:
                parity = dice.randrange(2)
                return call(lambda _: self._send_to_terminate(parity))
            case Kind.CLOSE:
                return say(forced_close())
            case Kind.LOSE_CONFIRMS:
                return drop()

    async def _aftermath(self, post: Post, deed: Deed) -> None:
        if deed.kind in (Kind.CUT, Kind.CLOSE, Kind.TERMINATE):
            return
        await asyncio.sleep(deed.seconds)
        if deed.kind is Kind.HALT:
            post.go_on()
        elif deed.kind is Kind.KILL:
            await post.again()

    def _send_to_terminate(self, parity: int) -> None:
        errand = asyncio.create_task(self._terminate(parity))
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def _terminate(self, parity: int) -> None:
        """End about half of the other sessions of the database, whosever they are."""
        with suppress(*AWAY):
            connection = await asyncpg.connect(self.database_url)
            try:
                self.hit["sessions ended"] += await connection.fetchval(TERMINATE, parity)
            finally:
                await connection.close()
