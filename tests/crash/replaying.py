"""Replays every dead letter there is, open or not, so many times: what nobody should do and everybody can.

    python -m tests.crash.replaying [--times N] [--policies JSON]

It uses the product as an operator's command does, in a process and a database connection of its own; what a letter sets
going waits as long as `--policies` says, as in the launcher.
"""

from __future__ import annotations

import argparse
import asyncio
import uuid
from collections import Counter
from typing import TYPE_CHECKING

from handlers.replay import Replayer
from running import AsyncioRunner
from runtime.database import opened
from runtime.loading import load_modules
from runtime.settings import load
from storage.statements import Statement
from tests.crash.launcher import policies_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outbox.unit import SqlStorage

LETTERS = Statement.both("select dead_letter_id from v_dead_letter order by dead_letter_id")


async def letters(storage: SqlStorage) -> Sequence[int]:
    """The ids of all of them."""
    async with storage.database.read() as session:
        return [row.dead_letter_id for row in await session.fetch(LETTERS, {})]


async def run(arguments: argparse.Namespace) -> None:
    """Each time under a request id of its own; prints how many came to which verdict."""
    settings = load().settings
    async with opened(settings) as storage:
        replayer = Replayer(
            load_modules(settings.modules, policies_of(arguments), limits=settings.limits).sagas,
            namespace=settings.namespace,
            storage=storage,
            runner=AsyncioRunner(),
            report=lambda _: None,
            limits=settings.limits,
        )
        for _ in range(arguments.times):
            verdicts: Counter[str] = Counter()
            for letter in await letters(storage):
                request = str(uuid.uuid4())
                verdict = await replayer.replay(letter, actor="the laboratory", reason="again", request_id=request)
                verdicts[verdict.outcome] += 1
            print(dict(verdicts), flush=True)


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(description="replay every dead letter, for the crash tests")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--policies")
    parser.set_defaults(hurried=False)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
