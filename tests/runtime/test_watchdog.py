"""The watchdog of a process that runs: people hear of a command that nobody takes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import asyncpg

from tests.runtime.shop import PARTICIPANT, SAGA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command, Settings
    from tests.runtime.processes import Process


async def test_people_hear_of_a_command_that_nobody_takes(
    antiphon: Command, started: Callable[..., Process], servers: Settings, folder: Path
) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    run = started("run", "--only", "relay,consumer", watchdog_interval="1s", **servers)
    run.until("process.ready")
    antiphon("publish", "tiny.Asked", '{"order_id": "1"}', **servers)
    run.until("message.publication_failed")
    connection = await asyncpg.connect(servers["database_url"])
    await connection.execute(
        f"update {servers['namespace']}.outbox set created_at = created_at - interval '2 minutes'"  # noqa: S608 - ours
    )
    await connection.close()
    raised = await asyncio.to_thread(run.until, "saga.attention_raised")
    assert (raised["key"], raised["reason"], raised["level"]) == ("1", "unroutable", "error")
    assert raised["error"] == "no queue takes tiny.Do; start antiphon participant worker"
    told = {
        each["check"]: each["problem"] for each in json.loads(antiphon("doctor", "--json", **servers).stdout)["checks"]
    }
    assert "1 instance wants an operator (1 unroutable)" in told["instances"]
