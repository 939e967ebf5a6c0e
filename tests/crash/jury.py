"""The judge of `court`: what the rules promise of events that people publish, checked like all else from outside.

Whatever was said is decided once: applied, ignored or dead-lettered; nothing is kept in the end, and nothing twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.crash.checker import FORWARD, SOUND, Expected, no_effect_happens_twice, violations
from tests.crash.script import REFORM

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from tests.crash.views import HistoryRow, Picture, SagaRow
    from tests.crash.witnesses import Word

    Verdict = Callable[["Picture", "Sequence[Word]"], Iterator[str]]

SAGA_TYPE = "CourtCase"
APPLIED = ("event_received", "signal_received", "cancelled")
VOTES = ("vote", "ballot")
"""What the wait for a vote is called in `court`, and in `reform`."""

ENTERED_OFTEN = "vault"
"""Whoever is asked each time that a state is entered."""


def judged(picture: Picture, starts: Mapping[str, str], said: Sequence[Word]) -> list[str]:
    """Everything that is wrong at the end of a run of cases in which this was said."""
    expected = Expected(
        starts=starts, allowed={order: ends(order) for order in starts}, saga_type=SAGA_TYPE, participants=tuple(REFORM)
    )
    checks = [check for check in SOUND if check is not no_effect_happens_twice]
    once = replace(picture, effects=[each for each in picture.effects if each.participant != ENTERED_OFTEN])
    return [
        *violations(picture, expected, checks),
        *no_effect_happens_twice(once, expected),
        *(sentence for verdict in VERDICTS for sentence in verdict(picture, said)),
    ]


def ends(order: str) -> Collection[str]:
    """Where a case may end, told from its id: who withdraws it may be late."""
    if order.startswith("withdrawn"):
        return {"completed", "compensated"}
    return {"compensated"} if "clerk=fail" in order else {"completed"}


def undecided(picture: Picture, said: Sequence[Word]) -> list[str]:
    """What was said and is not decided yet, in words."""
    decided = {row.message_id for row in picture.inbox if row.disposition != "held"}
    return [f"{word.name} {word.number} of {word.order}" for word in said if word.message_id not in decided]


def kept(picture: Picture, said: Sequence[Word]) -> list[str]:
    """The same, and what is held."""
    return [*undecided(picture, said), *[f"{each.name} is held" for each in picture.held]]


def every_word_is_decided_once(picture: Picture, said: Sequence[Word]) -> Iterator[str]:
    """The inbox has it once, with what became of it; and the history, the dead letters and what is held agree."""
    rows, dead = defaultdict(list), Counter(row.message_id for row in picture.dead)
    for row in picture.inbox:
        if row.consumer == SAGA_TYPE:
            rows[row.message_id].append(row.disposition)
    told = {
        kind: Counter(row.message_id for row in picture.history if row.kind in kinds) for kind, kinds in TOLD.items()
    }
    for word in said:
        name, found = f"{word.name} {word.number} of {word.order}", rows[word.message_id]
        if len(found) != 1:
            yield f"{name} stands in the inbox {len(found)} times"
            continue
        times = {kind: counted[word.message_id] for kind, counted in told.items()}
        times["dead_lettered"] = dead[word.message_id]
        if times != {**dict.fromkeys(times, 0), found[0]: 1}:
            yield f"{name} is {found[0]}, and is told of as {times}"


TOLD = {"applied": APPLIED, "ignored": ("message_ignored",)}


def every_wait_ends_once(picture: Picture, said: Sequence[Word]) -> Iterator[str]:
    """By a vote or in silence, and the next one begins behind it; only a case that turned back may leave one open."""
    for saga, history in _cases(picture):
        kinds = [row.kind for row in history if (row.step or "").startswith(VOTES)]
        kinds = [kind for kind in kinds if kind in ("wait_began", "event_received", "wait_timed_out")]
        pairs = list(zip(kinds[::2], kinds[1::2], strict=False))
        sound = all(began == "wait_began" and ended != "wait_began" for began, ended in pairs)
        if not sound or (len(kinds) % 2 and saga.phase == "completed"):
            yield f"case {saga.business_key}: its votes went {', '.join(kinds)}"


def every_entry_does_its_work_once(picture: Picture, said: Sequence[Word]) -> Iterator[str]:
    """The vault has locked a case away as often as it was sent there, each time under another key."""
    for saga, history in _cases(picture):
        sent = sum(row.kind == FORWARD and row.message_name == f"{ENTERED_OFTEN}.Do" for row in history)
        done = [
            each.idempotency_key
            for each in picture.effects
            if (each.order_id, each.participant) == (saga.business_key, ENTERED_OFTEN)
        ]
        if len(set(done)) != len(done) or (len(done) != sent and saga.phase == "completed"):
            yield f"case {saga.business_key} was sent to the vault {sent} times, which locked it away {len(done)} times"


def what_is_left_is_a_case_or_nothing(picture: Picture, said: Sequence[Word]) -> Iterator[str]:
    """Filed and proclaimed, or struck and never heard of."""
    net: Counter[tuple[str, str]] = Counter()
    for effect in picture.effects:
        net[effect.order_id, effect.participant] += 1 if effect.purpose == "do" else -1
    for saga, _ in _cases(picture):
        due = 1 if saga.phase == "completed" else 0
        for participant in ("clerk", "herald"):
            if (left := net[saga.business_key, participant]) != due:
                yield f"case {saga.business_key} is {saga.phase}, and of the {participant} is left {left}"


VERDICTS: Sequence[Verdict] = (
    every_word_is_decided_once,
    every_wait_ends_once,
    every_entry_does_its_work_once,
    what_is_left_is_a_case_or_nothing,
)


def _cases(picture: Picture) -> Iterator[tuple[SagaRow, Sequence[HistoryRow]]]:
    histories = defaultdict(list)
    for row in sorted(picture.history, key=lambda each: each.seq):
        histories[row.saga_id].append(row)
    for saga in picture.sagas:
        yield saga, histories[saga.saga_id]
