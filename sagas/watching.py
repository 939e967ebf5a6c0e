"""What a look from outside finds wrong with an instance: the reasons for attention that no message brings about
(design: section 4, rule 16).

Needs no definition, for it may be the one that is missing. A reason is raised when its cause is seen, cleared when its
own cause is gone, and says in words what to do. None of them stops anything.
"""

from __future__ import annotations

from dataclasses import field, replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from messages.value import value
from sagas.names import MARKER
from sagas.outcome import Decision, HistoryEntry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from sagas.instance import Instance

WATCHED = ("stalled", "version_missing", "unroutable", "refused", "timer_overdue", "outbox_overdue", "marker_overdue")
"""The reasons that are raised and cleared here."""

OVERDUE = timedelta(seconds=30)
"""How late a timer or a message may be, and how long an instance may wait for nothing, before people are told."""

AGED = timedelta(minutes=5)
"""How long a message may be in the outbox, however often it is tried, or a marker be away."""

UNREAD = "came in a version that the process that got it does not know; start one that does"
"""How a message is told of whose own version is missing: to know that of its instance does not help."""

_NAMED = 5  # so many names at most in a detail


@value
class Unsent:
    """A message of the instance that is still in the outbox.

    `state` is that of its row; what waits for a destination that takes nothing is in the state of the one that was
    tried. `in_flight`: it is just being tried again, and its state is what it was before.
    """

    name: str
    state: str
    created_at: datetime
    next_attempt_at: datetime
    in_flight: bool = False
    error: str | None = None


@value
class Watched:
    """What stands around an instance, read under its lock.

    `timers` are the rows, by name, with their due times, and `asked` those among them whose markers have not come back,
    with the time since when; `held` are the reasons of the messages held for it, but for
    those that should be dead letters by now.
    """

    timers: Mapping[str, datetime] = field(default_factory=dict)
    asked: Mapping[str, datetime] = field(default_factory=dict)
    outbox: Sequence[Unsent] = ()
    held: Collection[str] = ()


@value
class Here:
    """What the watching process knows: the versions of each saga type, and which participant takes a command."""

    versions: Mapping[str, Collection[int]]
    takers: Mapping[str, str] = field(default_factory=dict)

    def knows(self, instance: Instance) -> bool:
        """Whether this process can decide for that instance."""
        return instance.version in self.versions.get(instance.saga_type, ())


def watch(instance: Instance, seen: Watched, here: Here, now: datetime) -> Decision:
    """Raise and clear what has to be. Where nothing changes nothing is recorded; the revision stays in any case."""
    causes = dict(_causes(instance, seen, here, now))
    raised = {reason: text for reason, text in causes.items() if instance.attention.get(reason) != text}
    cleared = [reason for reason in WATCHED if reason in instance.attention and reason not in causes]
    if not raised and not cleared:
        return Decision(instance=instance)
    attention = {reason: text for reason, text in instance.attention.items() if reason not in cleared} | raised
    changes = [("attention_raised", {"reason": reason, "error": text}) for reason, text in raised.items()]
    changes += [("attention_cleared", {"reason": reason}) for reason in cleared]
    history = tuple(
        HistoryEntry(seq=seq, kind=kind, detail=detail)
        for seq, (kind, detail) in enumerate(changes, start=instance.seq + 1)
    )
    after = replace(instance, attention=attention, updated_at=now, seq=history[-1].seq)
    return Decision(instance=after, history=history)


def _causes(instance: Instance, seen: Watched, here: Here, now: datetime) -> Iterator[tuple[str, str]]:
    """Every reason whose cause is there, in the words it has or, where it is new, gets."""
    yield from _late_timer(instance, seen, now, known=here.knows(instance))
    yield from _unpublishable(instance, seen, here, now)
    yield from _late_outbox(instance, seen, now)
    yield from _late_marker(instance, seen, now)
    waits = seen.timers or seen.outbox or seen.held
    others = instance.attention.keys() - set(WATCHED)
    if not (waits or others or instance.paused or instance.phase.ended):
        stands = instance.attention.get("stalled")
        if stands or instance.updated_at < now - OVERDUE:
            yield "stalled", stands or _STALLED


_STALLED = (
    "it waits for nothing: no timer is set, no message is on its way and none is held; antiphon sagas retry makes it "
    "go on, antiphon sagas cancel turns it back"
)


def _late_timer(instance: Instance, seen: Watched, now: datetime, *, known: bool) -> Iterator[tuple[str, str]]:
    """Whoever does not know the version cannot tell why the timer is late: what another process said stands."""
    due_at, name = min(((due_at, name) for name, due_at in seen.timers.items()), default=(now, ""))
    late, said = due_at < now - OVERDUE, instance.attention
    text = f"timer {name} was due at {due_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC and nobody fires it"
    if late and (known or "timer_overdue" in said):
        yield "timer_overdue", said.get("timer_overdue", f"{text}; is a process with timers running?")
    stands = said.get("version_missing", "")
    if "version" in seen.held and stands.endswith(UNREAD):
        yield "version_missing", stands
    elif known:
        return
    elif stands and (late or "version" in seen.held):
        yield "version_missing", stands
    elif late and "timer_overdue" not in said:
        wanted = f"{instance.saga_type} version {instance.version}"
        yield "version_missing", f"{text}, and the process that sees it does not know {wanted}; start one that does"


def _unpublishable(instance: Instance, seen: Watched, here: Here, now: datetime) -> Iterator[tuple[str, str]]:
    for reason, state, patience, words in (
        ("unroutable", "returned", OVERDUE, _unroutable),
        ("refused", "refused", timedelta(0), _refused),
    ):
        stands = instance.attention.get(reason)
        ripe = [row for row in seen.outbox if row.state == state and row.created_at <= now - patience]
        news = [row for row in ripe if not row.in_flight and not (stands and row.name in stands)]
        if news:
            yield reason, words(instance, ripe, here)
        elif stands and any(row.state == state or row.in_flight for row in seen.outbox):
            yield reason, stands


def _unroutable(instance: Instance, rows: Sequence[Unsent], here: Here) -> str:
    starts = sorted({_start_of(instance, row.name, here) for row in rows})
    return f"no queue takes {_names(rows)}; start {_list(starts)}"


def _start_of(instance: Instance, name: str, here: Here) -> str:
    if name == MARKER:
        return f"a process that runs {instance.saga_type}: antiphon run"
    return f"antiphon participant {here.takers[name]}" if name in here.takers else "the participant that takes it"


def _refused(_instance: Instance, rows: Sequence[Unsent], _here: Here) -> str:
    errors = sorted({row.error for row in rows if row.error})
    return f"the broker refuses {_names(rows)} ({_list(errors) or 'it did not say why'}); tried every 10 min"


def _late_outbox(instance: Instance, seen: Watched, now: datetime) -> Iterator[tuple[str, str]]:
    """The latest next attempt counts: a message may stand behind an earlier one of its step, which is tried."""
    rows = [row for row in seen.outbox if row.state not in ("returned", "refused")]
    unswept = bool(rows) and max(row.next_attempt_at for row in rows) < now - OVERDUE
    aged = [row for row in rows if row.state != "claimed" and row.created_at < now - AGED]
    stands = instance.attention.get("outbox_overdue")
    if stands and (unswept or aged):
        yield "outbox_overdue", stands
    elif unswept or any(not row.in_flight for row in aged):
        late = rows if unswept else aged
        since = min(row.created_at for row in late)
        text = f"{_names(late)} could not be published since {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        errors = _list(sorted({row.error for row in late if row.error}))
        yield (
            "outbox_overdue",
            f"{text}{f' ({errors})' if errors else ''}; is a process with a relay running, and the broker there?",
        )


def _late_marker(instance: Instance, seen: Watched, now: datetime) -> Iterator[tuple[str, str]]:
    """A timer that is late itself is told of as such; while a message is held for it a marker comes back in vain."""
    if any(reason != "unawaited" for reason in seen.held):
        return
    stands = instance.attention.get("marker_overdue")
    late = [(at, name) for name, at in seen.asked.items() if at < now - AGED and seen.timers[name] > now - OVERDUE]
    if stands and seen.asked:
        yield "marker_overdue", stands
    elif late:
        at, name = min(late)
        yield (
            "marker_overdue",
            f"timer {name} would give up since {at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, and the marker that says so "
            f"has not come back through the queue of {instance.saga_type}; does a process with a consumer run, and "
            "keep up?",
        )


def _names(rows: Sequence[Unsent]) -> str:
    return _list(sorted({row.name for row in rows}))


def _list(words: Sequence[str]) -> str:
    more = len(words) - _NAMED
    return ", ".join(words[:_NAMED]) + (f" and {more} more" if more > 0 else "")
