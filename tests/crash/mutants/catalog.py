"""The mutants: each makes one mistake that a message-driven orchestrator is known to be made with.

A mutant is what to change in the product, the run that is to notice, and a sentence that the verdict has to say. It
stands here with as few of the product's lines as name the place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.value import value
from tests.crash.mutants import runs
from tests.crash.mutants.tree import Edit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.crash.mutants.runs import Run


@value
class Mutant:
    """One mistake. `tells` is a regular expression that one of the verdict's sentences matches."""

    name: str
    edits: Sequence[Edit]
    run: Run
    tells: str


MUTANTS: Sequence[Mutant] = (
    Mutant(
        name="acknowledges before the commit",
        edits=[
            Edit(
                file="handlers/consumer.py",
                old="                await consumer.settle(done)\n",
                new="",
            ),
            Edit(
                file="handlers/consumer.py",
                old="        committed = False\n        try:\n",
                new="        committed = False\n"
                "        await consumer.settle([each.delivery for each in batch.held])\n"
                "        try:\n",
            ),
        ],
        run=runs.killed_before_the_commit,
        tells=r"order o-1 has 0 sagas",
    ),
    Mutant(
        name="publishes before the commit",
        edits=[
            Edit(
                file="handlers/handle.py",
                old="        attempt.prepared = replace(attempt.prepared, claimed=await unit.save(changes))\n",
                new="        attempt.prepared = replace(attempt.prepared, claimed=await unit.save(changes))\n"
                "        await self._relay.publish(attempt.prepared.claimed, attempt.prepared.until)\n",
            ),
            Edit(
                file="handlers/handle.py",
                old="        await self._relay.publish(prepared.claimed, prepared.until)\n",
                new="",
            ),
        ],
        run=runs.killed_before_the_commit,
        tells=r"stock.ReserveStock \S+ was published before it was committed",
    ),
    Mutant(
        name="has no inbox",
        edits=[Edit(file="handlers/handle.py", old=" if identity not in claimed.known], claimed", new="], claimed")],
        run=runs.killed_before_the_acknowledgement,
        tells=r"started of \S+, but the inbox says ignored",
    ),
    Mutant(
        name="marks before the confirm",
        edits=[
            Edit(
                file="outbox/relay.py",
                old="for ticket, row in zip(tickets, rows, strict=True)]\n",
                new="for ticket, row in zip(tickets, rows, strict=True)]\n"
                "        self._confirmed.extend((row.outbox_id, row.token) for row in rows)\n"
                "        for ticket in tickets:\n"
                "            self._in_flight.pop(ticket)\n",
            )
        ],
        run=runs.cut_off_at_a_publication,
        tells=r"stock.ReserveStock \S+ was decided and never arrived",
    ),
    Mutant(
        name="ignores what is returned",
        edits=[
            Edit(
                file="outbox/relay.py",
                old="if outcome.verdict is Verdict.CONFIRMED:",
                new="if outcome.verdict in (Verdict.CONFIRMED, Verdict.RETURNED):",
            )
        ],
        run=runs.participants_come_late,
        tells=r"stock.ReserveStock \S+ was decided and never arrived",
    ),
    Mutant(
        name="gives up after two publications",
        edits=[
            Edit(
                file="outbox/relay.py",
                old="reason: str, *, retry_in: float | None = None) -> None:\n",
                new="reason: str, *, retry_in: float | None = None) -> None:\n"
                "        if row.attempts >= 1:\n"
                "            self._confirmed.append((row.outbox_id, row.token))\n"
                "            return\n",
            )
        ],
        run=runs.participants_come_late,
        tells=r"stock.ReserveStock \S+ was decided and never arrived",
    ),
    Mutant(
        name="compensates first in, first out",
        edits=[
            Edit(
                file="sagas/backward.py",
                old="step.do.ended >= last:",
                new="step.do.dispatched <= min(turn.steps[other].do.ended for other in left):",
            )
        ],
        run=runs.refused_and_contradicted,
        tells=r"order refused\S+: effects were not undone in reverse",
    ),
    Mutant(
        name="ignores a late success",
        edits=[
            Edit(
                file="sagas/replies.py",
                old="if reply.kind is ReplyKind.SUCCESS and step.do.status is not CallStatus.SUCCEEDED:",
                new="if False:",
            )
        ],
        run=runs.refused_and_contradicted,
        tells=r"contradicted\S+ is compensated, but warehouse has a net effect of 1",
    ),
    Mutant(
        name="believes the host's clock",
        edits=[
            Edit(file="outbox/unit.py", old="if locked and now is None:", new="if locked:"),
            Edit(
                file="outbox/unit.py",
                old="        return await inbox.claim(self.session, consumer, token, entries, self._now)",
                new="        claimed = await inbox.claim(self.session, consumer, token, entries, self._now)\n"
                "        return Claimed(known=claimed.known, now=self._now)",
            ),
        ],
        run=runs.one_clock_is_wrong,
        tells=r"is told after",
    ),
    Mutant(
        name="polls by the highest id",
        edits=[
            Edit(file="outbox/store.py", old="_RETURNED = ", new="_SEEN = [0]\n_RETURNED = "),
            Edit(
                file="outbox/store.py",
                old="where {postgresql} and {_IS_HEAD}",
                new="where {postgresql} and {_IS_HEAD} and o.outbox_id > cast(:seen as bigint)",
            ),
            Edit(
                file="outbox/store.py",
                old='        rows = await session.fetch(statement, {**parameters, "token": token, "lease": lease})\n',
                new='        parameters["seen"] = _SEEN[0]\n'
                '        rows = await session.fetch(statement, {**parameters, "token": token, "lease": lease})\n'
                "        _SEEN[0] = max([_SEEN[0], *(row.outbox_id for row in rows)])\n",
            ),
        ],
        run=runs.the_first_at_the_door_commits_last,
        tells=r"order slow has 0 sagas",
    ),
    Mutant(
        name="swallows a cancellation",
        edits=[
            Edit(
                file="storage/database.py",
                old="                raise _ours(error, committing=True) from error\n            raise\n",
                new="                raise _ours(error, committing=True) from error\n"
                "            if not isinstance(error, asyncio.CancelledError):\n                raise\n",
            )
        ],
        run=runs.stopped_in_a_commit,
        tells=r"order o-1 has 0 sagas",
    ),
    Mutant(
        name="replays without looking whether it was done",
        edits=[
            Edit(
                file="handlers/replay.py",
                old="if (ended := await closed(unit.session, request, seen)) is not None or seen is None:",
                new="if (ended := None) or seen is None:",
            ),
            Edit(
                file="handlers/replay.py",
                old="if (ended := await closed(unit.session, request, letter)) is not None or letter is None:",
                new="if (ended := None) or letter is None:",
            ),
            Edit(
                file="handlers/replay.py",
                old="known = claimed.known.get(routed.identity) if routed.identity is not None else None",
                new="known = None",
            ),
            Edit(
                file="storage/dead_letters.py",
                old="replayed_seq = r.seq\n"
                "        from {rows} where d.dead_letter_id = r.dead_letter_id and d.status = 'open'",
                new="replayed_seq = r.seq\n        from {rows} where d.dead_letter_id = r.dead_letter_id",
            ),
        ],
        run=runs.every_letter_is_replayed_twice,
        tells=r"reply_received of \S+, but the inbox says ignored",
    ),
    Mutant(
        name="acknowledges on pg_xact_status",
        edits=[
            Edit(
                file="storage/database.py",
                old="    async def _commit(self, connection: AsyncConnection) -> None:\n",
                new="    async def _is_committed(self, xid: object) -> bool:\n"
                "        while True:\n"
                "            try:\n"
                "                async with self.engine.connect() as fresh:\n"
                "                    asked = await fresh.exec_driver_sql(f\"select pg_xact_status('{xid}')\")\n"
                '                    return asked.scalar() == "committed"\n'
                "            except RAISED_BY_DRIVERS:\n"
                "                await asyncio.sleep(0.05)\n"
                "\n"
                "    async def _commit(self, connection: AsyncConnection) -> None:\n"
                "        asked = await connection.exec_driver_sql('select pg_current_xact_id_if_assigned()::text')\n"
                "        xid = asked.scalar()\n",
            ),
            Edit(
                file="storage/database.py",
                old="                raise _ours(error, committing=True) from error\n            raise\n",
                new="                if xid is not None and await self._is_committed(xid):\n"
                "                    return\n"
                "                raise _ours(error, committing=True) from error\n            raise\n",
            ),
        ],
        run=runs.the_database_dies_in_a_commit,
        tells=r"order o-1 has 0 sagas",
    ),
    Mutant(
        name="withdraws a claimed row",
        edits=[
            Edit(
                file="outbox/store.py",
                old="saga_id is not null and state in ('new', 'returned')\n            order by outbox_id",
                new="saga_id is not null and state in ('new', 'returned', 'claimed')\n            order by outbox_id",
            ),
            Edit(
                file="outbox/store.py",
                old="where o.outbox_id = found.outbox_id and o.state in ('new', 'returned')",
                new="where o.outbox_id = found.outbox_id and o.state in ('new', 'returned', 'claimed')",
            ),
        ],
        run=runs.the_deadline_strikes_before_the_confirm,
        tells=r"is compensated, but stock has a net effect of 1",
    ),
    Mutant(
        name="gives up before the queue is read",
        edits=[
            Edit(
                file="sagas/timeouts.py",
                old="_ask_to_give_up(turn, timer_name(path, purpose), _entry(turn, path, progress), wait, unsent)",
                new="_doubt(turn, path)",
            )
        ],
        run=runs.the_answer_is_still_in_the_queue,
        tells=r"is compensated \(attention: None\); allowed: completed",
    ),
    Mutant(
        name="undoes no item that was asked twice",
        edits=[
            Edit(
                file="sagas/working_off.py",
                old="owed = undo is not None and step.undo is None and step.do.spent > 0",
                new="owed = undo is not None and step.undo is None and step.do.spent == 1",
            )
        ],
        run=runs.a_list_turns_back,
        tells=r"is compensated, and of load is left becalmed-1/c2",
    ),
    Mutant(
        name="moves an instance before its history",
        edits=[
            Edit(
                file="handlers/migrations.py",
                old="            await unit.save(await deciding.changes())\n",
                new="            changes = await deciding.changes()\n"
                "            await unit.save(replace(changes, history=[]))\n"
                "        async with self._storage.transaction() as unit:\n"
                "            await unit.save(Changes(consumer=changes.consumer, history=changes.history))\n",
            ),
            Edit(
                file="handlers/migrations.py",
                old="from outbox.interface import Storage\n",
                new="from dataclasses import replace\nfrom outbox.interface import Changes, Storage\n",
            ),
        ],
        run=runs.moved_by_the_second_mover,
        tells=r"of version 2 was moved 0 times",
    ),
    Mutant(
        name="does not wait for a child that it has cancelled",
        edits=[
            Edit(
                file="sagas/recalling.py",
                old='            recall(turn, path, "turned_back")\n',
                new='            recall(turn, path, "turned_back")\n'
                "            turn.close(path, Purpose.DO, CallStatus.FAILED, turn.seq)\n",
            )
        ],
        run=runs.a_parent_turns_back,
        tells=r"the van left before boxes had undone stuck-1/kitchen",
    ),
)
