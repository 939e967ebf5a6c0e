"""`demo`: the ordering process in one process, shown while it happens and told afterwards."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handlers.facts import BatchCommitted, CommandAnswered, CommandDropped, MessageDuplicated, MessageIgnored
from runtime.demo import telling
from runtime.demo.file import Standing, details, look
from runtime.demo.orders import orders as invented
from runtime.demo.orders import told
from runtime.demo.play import Play
from runtime.demo.screens import NoScreen, screen_for
from runtime.demo.staging import ADDRESS, MODULES
from runtime.exits import FAILED, OK
from runtime.facts import DependencyReached
from runtime.loading import load_modules
from runtime.printing import console, print_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rich.console import Console

    from runtime.demo.orders import Order


_ORDINARY = (BatchCommitted, CommandAnswered, CommandDropped, DependencyReached, MessageDuplicated, MessageIgnored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What this process did: the keys of the orders it dealt with, how long that took, and whether it was stopped."""

    keys: Collection[str]
    seconds: float
    interrupted: bool


async def demo(count: int, *, resume: bool, as_json: bool) -> int:
    """Place so many orders, or with `resume` none, finish them and those that an earlier process left, and tell all.

    Raises:
        ConfigurationError: another process runs on the demo's file, or it cannot be used.
        Trouble: the database does not answer.
    """
    out = console()
    before = await look()
    if resume and not before.unfinished and not before.outbox:
        stood = before.of({before.latest_run})
        if not as_json:
            telling.nothing_to_resume(out, before)
        return await _tell(out, stood, None, as_json=as_json)
    placed = [] if resume else invented(before.latest_run + 1, count)
    if not as_json:
        telling.introduce(out, placed, before.unfinished, load_modules(MODULES))
    played = await _play(out, placed, before.unfinished, silent=as_json)
    runs = {order.run for key in played.keys if (order := told(key))}
    stood = (await look()).of(runs)
    if not as_json:
        telling.finished(out, stood, before.unfinished, seconds=played.seconds)
    return await _tell(out, stood, played, as_json=as_json)


async def _play(out: Console, placed: Sequence[Order], unfinished: Sequence[Order], *, silent: bool) -> Played:
    began = time.monotonic()
    with NoScreen() if silent else screen_for(out, len(placed) + len(unfinished)) as screen:
        play = Play(screen, _log)
        await play.run(placed, unfinished)
    return Played(keys=play.watch.seen, seconds=time.monotonic() - began, interrupted=play.interrupted)


async def _tell(out: Console, stood: Sequence[Standing], played: Played | None, *, as_json: bool) -> int:
    """How these orders stand, and the exit code that follows from it."""
    known = {each.order.key for each in stood}
    missing = [key for key in (played.keys if played else ()) if told(key) and key not in known]
    interrupted = played is not None and played.interrupted
    well = not missing and not interrupted and all(each.as_expected for each in stood)
    if as_json:
        _print_json(stood, played, as_expected=well)
    elif stood:
        telling.outcomes(out, stood)
        chosen = telling.examples(stood)
        for detail in await details(chosen):
            telling.timeline(out, detail)
        telling.unexpected(out, stood, missing, interrupted=interrupted)
        telling.onward(out, chosen[-1] if chosen else None)
    return OK if well else FAILED


def _print_json(stood: Sequence[Standing], played: Played | None, *, as_expected: bool) -> None:
    print_json(
        {
            "database": ADDRESS,
            "seconds": round(played.seconds, 3) if played else 0.0,
            "interrupted": played is not None and played.interrupted,
            "as_expected": as_expected,
            "orders": [
                {
                    "order": each.order.key,
                    "saga_id": each.saga.saga_id,
                    "story": each.order.story.plot,
                    "expected": each.order.story.status,
                    "status": each.saga.status,
                    "end_reason": each.saga.end_reason,
                    "seconds": each.seconds,
                }
                for each in stood
            ],
        }
    )


def _log(fact: object) -> None:
    """Log to stderr what is out of the ordinary. What that takes is slow to import, so it is done when it is needed."""
    if isinstance(fact, _ORDINARY):
        return
    from runtime import logs
    from runtime.telemetry import Telemetry

    logs.configure(log_format="console", level="warning", stream=sys.stderr)
    Telemetry("warning")(fact)
