"""What a reason for attention means and what helps: said here once, for whoever shows an instance."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What has happened, and what to do; `{key}` stands for the business key as a shell reads it.

    `stands_still`: nothing goes on until somebody does it.
    """

    meaning: str
    remedy: str
    stands_still: bool = False

    def remedy_for(self, business_key: str) -> str:
        """What to do about that instance."""
        return self.remedy.format(key=shlex.quote(business_key))


ADVICE: Mapping[str, Advice] = {
    "method_raised": Advice(
        meaning="a method of the saga raised",
        remedy="mend the class and deploy it, then antiphon sagas retry {key}; or skip what cannot be built",
        stands_still=True,
    ),
    "undo_needs_reply": Advice(
        meaning="a compensation cannot be built without the reply of its step",
        remedy="take it back by hand, then antiphon sagas resolve {key}; or skip it, or mend the class and retry; or "
        "wait: the reply may still come",
        stands_still=True,
    ),
    "compensation_failed": Advice(
        meaning="a participant refused to undo its step",
        remedy="see to the participant, then antiphon sagas retry {key}; or take it back by hand, then resolve it; or "
        "skip it",
        stands_still=True,
    ),
    "compensation_exhausted": Advice(
        meaning="a compensation is not answered; it goes on trying, at the longest pause of its retry",
        remedy="look at the participant; antiphon sagas retry {key} asks at once",
    ),
    "orphaned_effect": Advice(
        meaning="a step succeeded after it was given up, and nothing undoes it",
        remedy="antiphon sagas undo {key}; where it has no compensation take it back by hand, then antiphon sagas "
        "resolve {key}",
    ),
    "in_doubt": Advice(
        meaning="a step is sent until an answer settles it; nothing that came before it is undone until then",
        remedy="look at the participant; antiphon sagas retry {key} asks at once, skip goes on without an answer",
    ),
    "deadline_passed": Advice(
        meaning="the deadline passed after its pivot, where nothing is undone any more",
        remedy="look at the participant it waits for",
    ),
    "compensation_overdue": Advice(
        meaning="the deadline passed while it was being undone", remedy="look at the participant it waits for"
    ),
    "alias_refused": Advice(
        meaning="its state gives it an alias that it cannot have, so that no event finds it by that",
        remedy="see which instance has it and which is right; what names {key} by its correlation_id still reaches it",
    ),
    "messages_held": Advice(
        meaning="messages came for it while it was paused", remedy="antiphon sagas resume {key} applies them"
    ),
    "stalled": Advice(
        meaning="it waits for nothing at all", remedy="antiphon sagas retry or cancel {key}", stands_still=True
    ),
    "version_missing": Advice(
        meaning="no process knows the version of this instance, or of a message for it", remedy="deploy one that does"
    ),
    "unroutable": Advice(meaning="a command finds no queue", remedy="start the participant that takes it"),
    "refused": Advice(
        meaning="the broker refuses a message as it is",
        remedy="mend what it says, or antiphon sagas cancel {key}",
    ),
    "timer_overdue": Advice(
        meaning="a timer is due and nobody fires it", remedy="see that a process with timers is running"
    ),
    "outbox_overdue": Advice(
        meaning="a message is not published", remedy="see that a process with a relay is running, and the broker there"
    ),
    "marker_overdue": Advice(
        meaning="nobody reads the saga's queue, or not fast enough",
        remedy="see that a process with a consumer is running",
    ),
}
"""By reason, the gravest of those first that make an instance stand still."""


def what_only_a_person_can_do(reasons: Collection[str], business_key: str) -> str | None:
    """The remedy where an instance stands still for one of these reasons, the gravest first."""
    for reason, advice in ADVICE.items():
        if advice.stands_still and reason in reasons:
            return advice.remedy_for(business_key)
    return None
