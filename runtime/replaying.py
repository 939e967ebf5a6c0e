"""What replays dead letters in a command's own process, put together from the settings.

What it makes anybody send waits in the outbox: the relay of a process that runs publishes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from handlers.answering import Answering
from handlers.give_back import GiveBack
from handlers.participant_consumer import PATIENCE
from handlers.replay import Replayer
from handlers.replay_command import CommandReplayer
from handlers.replay_job import ReplayJob
from handlers.replays import Replays
from outbox.relay import Relay
from storage.replay_jobs import ReplayJobs
from transport.in_process import InProcessTransport

if TYPE_CHECKING:
    from handlers.participant import Participant
    from messages.codec import Limits
    from outbox.unit import SqlStorage
    from runtime.loading import Known
    from runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaying:
    """The parts: one letter, many of them, and the rows of jobs."""

    replays: Replays
    job: ReplayJob
    jobs: ReplayJobs


def replaying(settings: Settings, known: Known, storage: SqlStorage) -> Replaying:
    """The parts over this storage, which stays the caller's."""
    runner, limits = storage.database.runner, settings.limits
    give_back = GiveBack(storage, runner, limits=limits)
    replays = Replays(
        storage,
        namespace=settings.namespace,
        sagas=Replayer(
            known.sagas,
            namespace=settings.namespace,
            storage=storage,
            runner=runner,
            report=_nobody,
            limits=limits,
        ),
        participants={
            name: _commands(settings, participant, storage, limits) for name, participant in known.participants.items()
        },
        give_back=give_back,
    )
    jobs = ReplayJobs(storage.database)
    return Replaying(replays=replays, job=ReplayJob(replays, jobs, give_back, runner), jobs=jobs)


def _commands(settings: Settings, participant: Participant, storage: SqlStorage, limits: Limits) -> CommandReplayer:
    runner = storage.database.runner
    relay = Relay(storage, InProcessTransport(app_id=settings.namespace).publisher, runner, _nobody)
    relay.stop()  # rows are then born unclaimed, for the process that has one
    answering = Answering(
        participant,
        storage,
        relay,
        runner,
        report=_nobody,
        namespace=settings.namespace,
        limits=limits,
        patience=PATIENCE,
    )
    return CommandReplayer(answering, storage, runner)


def _nobody(_: object) -> None:
    """A command prints its result; it has no log."""
