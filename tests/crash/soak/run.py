"""The stages of a long run: set up, work under fire, heal, drain, mend, replay, judge."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.crash.driver import Setup
from tests.crash.forking import Program
from tests.crash.laboratory import Laboratory
from tests.crash.nemesis.customers import Customers
from tests.crash.nemesis.deeds import LONGEST
from tests.crash.nemesis.nemesis import Nemesis
from tests.crash.nemesis.post import Crew, Post
from tests.crash.process import Child
from tests.crash.script import Script
from tests.crash.soak.findings import Findings
from tests.crash.soak.judge import Judge
from tests.crash.soak.outages import Outages
from tests.crash.soak.samples import Samples
from tests.services.private import PrivatePostgres, PrivateRabbitMQ

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.proxy.wire import Event

REMEMBERED = 1_000  # events of each wire
DRAINED = 900.0  # seconds after the last fault until nothing may be on its way any more
PAUSES = (1.0, 12.0)  # seconds between two faults on one wire
HEALED = 120.0  # seconds after it until an order goes through
BROKEN = "[27]7$"  # the orders whose saga raises until it is mended: two in a hundred
MIX = {
    "fail": 0.04,
    "transient": 0.05,
    "silent": 0.005,
    "deaf": 0.005,
    "mute": 0.02,
    "late": 0.1,
    "times": 0.04,
    "echo": 0.04,
    "malformed": 0.005,
    "stranger": 0.02,
    "unknown": 0.02,
}
STEPS, UNDOS = ("reserve", "pay", "label"), ("release", "refund", "void")
SENDS, UNDO_SENDS = 4, 10  # of a command, before its step is in doubt, or people are told
CAP = 60  # seconds that a send waits at most: an overloaded machine must not be asked more and more


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do: for how many `minutes`, at how many `starts` per second."""

    minutes: float
    starts: float
    sidecars: int
    seed: int
    folder: Path
    rounds: int | None = None  # so many faults on every wire, instead of a time
    pauses: tuple[float, float] = PAUSES
    longest: float = LONGEST  # seconds that a fault lasts at most
    timeout: float = 5.0  # seconds until a command is sent again
    broken: str = BROKEN

    @property
    def calm(self) -> tuple[float, float]:
        """The seconds between two outages of a server, at least and at most: a long run has a dozen."""
        return max(20.0, 3 * self.minutes), max(40.0, 6 * self.minutes)

    @property
    def policies(self) -> str:
        """The timeouts of the saga, as the launcher reads them."""
        calls = {step: [self.timeout, SENDS, CAP] for step in STEPS}
        calls |= {undo: [self.timeout, UNDO_SENDS, CAP] for undo in UNDOS}
        return json.dumps({"calls": calls})

    @property
    def command(self) -> str:
        """What does the same again."""
        told = f"--minutes {self.minutes:g} --starts {self.starts:g} --sidecars {self.sidecars} --seed {self.seed}"
        return f"python -m tests.crash.soak {told}"


@dataclass(slots=True)
class Soak:
    """One run of a plan."""

    plan: Plan
    findings: Findings = field(init=False)

    def __post_init__(self) -> None:
        self.findings = Findings(command=self.plan.command)

    async def run(self) -> Findings:
        """All of it. What goes wrong is in the findings, unless the laboratory itself breaks."""
        with PrivatePostgres() as postgres, PrivateRabbitMQ() as rabbitmq:
            setup = Setup(
                folder=self.plan.folder,
                database_url=postgres.database(),
                broker_url=rabbitmq.url,
                settings={"LOG_LEVEL": "warning"},
            )
            async with Laboratory(setup=setup) as laboratory:
                outages = Outages(postgres=postgres, rabbitmq=rabbitmq, pauses=self.plan.calm)
                try:
                    await self.on(laboratory, outages)
                except Exception:
                    self.findings.wrong.append(f"the run broke off:\n{traceback.format_exc()}")
                    await outages.over()
                if self.findings.wrong:
                    print("\n".join(self.findings.wrong), flush=True)
                    await asyncio.to_thread(postgres.dump, setup.database_url, self.plan.folder / "database.dump")
        return self.findings

    async def on(self, laboratory: Laboratory, outages: Outages | None = None) -> Findings:
        """The stages, on servers that are there; without outages they stay up.

        Raises:
            ChildError: a process ended that nobody had killed.
        """
        setup, findings, plan = laboratory.setup, self.findings, self.plan
        script = Script(seed=plan.seed, mix=MIX)
        customers = Customers(setup=setup, script=script, per_second=plan.starts, broken=plan.broken)
        async with AsyncExitStack() as stack:
            posts = await self._posts(laboratory, stack)
            crew = await stack.enter_async_context(Crew(setup=setup, script=script))
            stack.push_async_callback(customers.close)
            for post in posts:
                await post.sidecar.ready()
            if outages is not None:
                await asyncio.to_thread(outages.rabbitmq.settle)
            nemesis = Nemesis(
                seed=plan.seed,
                posts=posts,
                crew=crew,
                database_url=setup.database_url,
                pauses=plan.pauses,
                longest=plan.longest,
            )
            judge = Judge(setup=setup, customers=customers, findings=findings, broken=plan.broken)
            samples = Samples(setup=setup, posts=posts, customers=customers, nemesis=nemesis, findings=findings)
            sampling = asyncio.create_task(samples.take())
            try:
                await self._under_fire(customers, nemesis, outages, sampling)
                await nemesis.heal()
                await customers.all_placed()
                await judge.progress(HEALED)
                await judge.drained(DRAINED)
                (setup.folder / "broken").unlink()
                await self._replayed_twice(setup, judge)
            finally:
                sampling.cancel()
                await asyncio.wait([sampling])
                findings.faults = nemesis.kinds + (outages.caused if outages is not None else Counter())
                findings.note_windows(nemesis.hit, nemesis.missed)
                findings.copies_placed = customers.copies
                findings.lives = {post.name: post.lives for post in posts}
            if not sampling.cancelled():
                sampling.result()
            complaints = [
                each for post in posts for proxy in (post.wires.pg, post.wires.amqp) for each in proxy.complaints
            ]
            findings.wrong += [f"the laboratory could not follow {each}" for each in complaints]
            await judge.judge()
        return findings

    async def _posts(self, laboratory: Laboratory, stack: AsyncExitStack) -> list[Post]:
        broken = self.plan.folder / "broken"
        broken.write_text(self.plan.broken)
        words = ["--policies", self.plan.policies, "--broken", str(broken)]
        posts = []
        for number in range(1, self.plan.sidecars + 1):
            wires = await laboratory.wires(remember=REMEMBERED)
            wires.amqp.observers.append(self._count)
            post = Post(name=f"sidecar-{number}", wires=wires, command=Program("tests.crash.launcher", words))
            posts.append(await stack.enter_async_context(post))
        return posts

    def _count(self, event: Event) -> None:
        counted = self.findings.wire
        match event.name:
            case "amqp.s2c.deliver":
                counted["deliveries"] += 1
                counted["of them given again by the broker"] += bool(event.details["redelivered"])
            case "amqp.c2s.publish":
                counted["publications"] += 1
            case "amqp.s2c.return":
                counted["returned"] += 1

    async def _under_fire(
        self, customers: Customers, nemesis: Nemesis, outages: Outages | None, sampling: asyncio.Task[None]
    ) -> None:
        """Place orders and strike, until the time or the rounds are over; what ends before that has gone wrong."""
        work = [asyncio.create_task(nemesis.rage(self.plan.rounds)), asyncio.create_task(customers.shop())]
        if outages is not None:
            work.append(asyncio.create_task(outages.cause(self.plan.seed)))
        time = self.plan.minutes * 60 if self.plan.rounds is None else None
        try:
            ended, _ = await asyncio.wait([*work, sampling], timeout=time, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.wait(work)
        if outages is not None:
            await outages.over()

    async def _replayed_twice(self, setup: Setup, judge: Judge) -> None:
        """The saga is mended: every letter is replayed, and once more when all is done, which must change nothing."""
        self.findings.replays.append(await self._replayed(setup))
        await judge.drained(DRAINED)
        before = await judge.books()
        self.findings.replays.append(await self._replayed(setup))
        await judge.drained(DRAINED)
        after = await judge.books()
        if before != after:
            self.findings.wrong.append(f"the second replay changed the books: {before} before, {after} after")

    async def _replayed(self, setup: Setup) -> str:
        program = Program("tests.crash.replaying", ["--policies", self.plan.policies])
        log = setup.folder / "replay.log"
        log.write_text("")
        async with await Child.start("replay", program, folder=setup.folder, env=setup.environment()) as child:
            if await child.ended(DRAINED) != 0:
                self.findings.wrong.append(f"the replay failed:\n{child.tail()}")
        return child.text().strip()
