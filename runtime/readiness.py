"""Whether this process can do its work right now: named checks, each with a sentence when it fails.

Knows no HTTP; `runtime.http` serves the verdict.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from messages.errors import AntiphonError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from running import Runner

Check: TypeAlias = "Callable[[], Awaitable[str | None]]"
"""Answers None when all is well, else what is wrong in words. An `AntiphonError` counts as its text."""

PATIENCE = 2.0
"""Seconds a check may take; a probe must not wait for a hanging dependency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found."""

    ok: bool
    detail: str


class Health(Protocol):
    """Whoever can tell whether work can be done."""

    async def findings(self) -> Mapping[str, Finding]:
        """What every check finds now, by its name."""
        ...


class Readiness:
    """The checks of a process. Unready from `drain` on, whatever they say."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._checks: dict[str, Check] = {}
        self._draining = False

    def add(self, name: str, check: Check) -> None:
        """Take a further check into account; the same name replaces the earlier one."""
        self._checks[name] = check

    def drain(self) -> None:
        """The process is stopping: unready for good."""
        self._draining = True

    async def findings(self) -> dict[str, Finding]:
        """Run every check, side by side, none longer than `PATIENCE`."""
        tasks = [self._runner.start(self._run(check), name=f"check {name}") for name, check in self._checks.items()]
        found = dict(zip(self._checks, await asyncio.gather(*tasks), strict=True))
        found["draining"] = Finding(ok=not self._draining, detail="stopping" if self._draining else "no")
        return found

    async def _run(self, check: Check) -> Finding:
        try:
            async with self._runner.timeout(PATIENCE):
                problem = await check()
        except TimeoutError:
            problem = f"no answer within {PATIENCE:g} s"
        except AntiphonError as error:
            problem = str(error)
        return Finding(ok=problem is None, detail=problem or "ok")
